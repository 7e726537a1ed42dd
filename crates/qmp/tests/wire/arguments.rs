//! Arguments seen from outside: what is refused, in which words, and what the typed commands hold.

use crate::command;
use qmp::Command;
use qmp::types::{AioBackend, BlockdevDriver, BlockdevRef, ReplicationRole};
use serde_json::{Value, json};

/// Command, arguments, error. The errors are those of `qemu-storage-daemon` 10.0.2, except that
/// the full path is named where it names the last part only, and that numbers out of range are
/// refused where it takes them for others or aborts.
const REFUSED: &str = r#"
blockdev-add {} Parameter 'driver' is missing
blockdev-add {"driver":"vhd"} Parameter 'driver' does not accept value 'vhd'
blockdev-add {"driver":1} Invalid parameter type for 'driver', expected: string
blockdev-add {"driver":"file"} Parameter 'filename' is missing
blockdev-add {"driver":"file","filename":1} Invalid parameter type for 'filename', expected: string
blockdev-add {"driver":"file","filename":"a","cache":{"direct":1}} Invalid parameter type for 'cache.direct', expected: boolean
blockdev-add {"driver":"file","filename":"a","cache":1} Invalid parameter type for 'cache', expected: object
blockdev-add {"driver":"file","filename":"a","aio":"foo"} Parameter 'aio' does not accept value 'foo'
blockdev-add {"driver":"file","filename":"a","aio":null} Invalid parameter type for 'aio', expected: string
blockdev-add {"driver":"raw","file":{"driver":"file","filename":1}} Invalid parameter type for 'file.filename', expected: string
blockdev-add {"driver":"raw","file":{"driver":"file","filename":"a","zoo":1}} Parameter 'file.zoo' is unexpected
blockdev-add {"driver":"raw","file":1} Invalid parameter type for 'file', expected: BlockdevRef
blockdev-add {"driver":"raw","file":null} Invalid parameter type for 'file', expected: BlockdevRef
blockdev-add {"driver":"raw","file":{"filename":"f"}} Parameter 'file.driver' is missing
blockdev-add {"driver":"raw","file":{"driver":"raw","file":{"driver":"null-co","size":"x"}}} Invalid parameter type for 'file.file.size', expected: integer
blockdev-add {"driver":"quorum","vote-threshold":1,"children":["a",{"driver":"file"}]} Parameter 'children[1].filename' is missing
blockdev-add {"driver":"quorum","vote-threshold":1,"children":"a"} Invalid parameter type for 'children', expected: array
blockdev-add {"driver":"quorum","vote-threshold":1,"children":["a",3]} Invalid parameter type for 'children[1]', expected: BlockdevRef
blockdev-add {"driver":"null-co","size":-1} Parameter 'size' expects a size of less than 8 EiB
blockdev-add {"driver":"null-co","size":9223372036854775808} Parameter 'size' expects a size of less than 8 EiB
blockdev-add {"driver":"null-co","size":"1"} Invalid parameter type for 'size', expected: integer
blockdev-add {"driver":"null-co","size":1.5} Invalid parameter type for 'size', expected: integer
blockdev-add {"driver":"null-co","latency-ns":-1} Parameter 'latency-ns' expects uint64
blockdev-add {"driver":"null-co","latency-ns":18446744073709551616} Invalid parameter type for 'latency-ns', expected: integer
blockdev-add {"driver":"nbd","server":{"type":"inet","host":"a"}} Parameter 'server.port' is missing
blockdev-add {"driver":"nbd","server":{"type":"foo"}} Parameter 'server.type' does not accept value 'foo'
blockdev-add {"driver":"nbd","server":{"type":"unix","path":"p"},"reconnect-delay":4294967296} Parameter 'reconnect-delay' expects uint32_t
blockdev-add {"driver":"nbd","server":{"type":"unix","path":"p"},"tls-creds":"t"} Parameter 'tls-creds' is unexpected
blockdev-add {"driver":"nbd","server":{"type":"unix","path":"p"},"x-dirty-bitmap":"b"} Parameter 'x-dirty-bitmap' is unexpected
blockdev-add {"driver":"replication","mode":"tertiary","file":"q"} Parameter 'mode' does not accept value 'tertiary'
blockdev-add {"driver":"replication","file":"q"} Parameter 'mode' is missing
blockdev-add {"driver":"replication","mode":"primary"} Parameter 'file' is missing
blockdev-add {"driver":"replication","mode":"primary","file":"q","foo":1} Parameter 'foo' is unexpected
blockdev-add {"driver":"blkdebug","image":"n","inject-error":[{"event":"foo"}]} Parameter 'inject-error[0].event' does not accept value 'foo'
blockdev-add {"driver":"blkdebug","image":"n","inject-error":[{"event":"none","x":"x"}]} Parameter 'inject-error[0].x' is unexpected
blockdev-del {"node-name":3} Invalid parameter type for 'node-name', expected: string
query-named-block-nodes {"flat":1} Invalid parameter type for 'flat', expected: boolean
nbd-server-start {"addr":{"type":"unix","data":{"path":"p","x":1}}} Parameter 'addr.data.x' is unexpected
nbd-server-start {"addr":{"type":"unix","path":"p"}} Parameter 'addr.data' is missing
block-export-add {"id":"e","node-name":"n"} Parameter 'type' is missing
block-export-add {"type":"fuse","id":"e","node-name":"n"} Parameter 'type' does not accept value 'fuse'
block-export-add {"type":"nbd","id":"e","node-name":"n","zork":1} Parameter 'zork' is unexpected
block-export-del {"id":"e","mode":"x"} Parameter 'mode' does not accept value 'x'
x-blockdev-change {"node":"n"} Parameter 'parent' is missing
quit {"a":1} Parameter 'a' is unexpected
nope {} The command nope has not been found
"#;

#[test]
fn bad_arguments_are_refused_by_name() {
    for line in REFUSED.trim().lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let (arguments, error) = rest.split_at(rest.find("} ").unwrap() + 1);
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        assert_eq!(
            command(name, &arguments).unwrap_err(),
            error.trim(),
            "{line}"
        );
    }
}

fn driver(arguments: &Value) -> BlockdevDriver {
    let Command::BlockdevAdd(options) = command("blockdev-add", arguments).unwrap() else {
        panic!("{arguments} adds a node");
    };
    options.driver
}

#[test]
fn children_are_names_or_descriptions() {
    let options = driver(&json!({
        "driver": "raw",
        "offset": 512,
        "file": {"driver": "file", "filename": "/d", "aio": "native", "node-name": "f"},
    }));
    let BlockdevDriver::Raw(raw) = options else {
        panic!("{options:?}")
    };
    assert_eq!(raw.offset.unwrap().0, 512);
    let BlockdevRef::Definition(child) = raw.file else {
        panic!("{:?}", raw.file)
    };
    assert_eq!(child.common.node_name.as_deref(), Some("f"));
    let BlockdevDriver::File(file) = child.driver else {
        panic!("{:?}", child.driver)
    };
    assert_eq!(
        (file.filename.as_str(), file.aio),
        ("/d", Some(AioBackend::Native))
    );
    let options = driver(&json!({"driver": "raw", "file": "f"}));
    let BlockdevDriver::Raw(raw) = options else {
        panic!("{options:?}")
    };
    assert_eq!(raw.file, BlockdevRef::Reference("f".to_owned()));
}

#[test]
fn options_are_written_as_they_were_read() {
    let arguments = json!({
        "driver": "quorum",
        "node-name": "q",
        "vote-threshold": 1,
        "read-pattern": "fifo",
        "children": [
            "local",
            {"driver": "nbd", "server": {"type": "inet", "host": "::1", "port": "10809"}},
            {"driver": "null-co", "size": 1u64 << 40, "latency-ns": u64::MAX},
        ],
    });
    let Command::BlockdevAdd(options) = command("blockdev-add", &arguments).unwrap() else {
        panic!("{arguments} adds a node");
    };
    assert_eq!(serde_json::to_value(options).unwrap(), arguments);
}

//= docs/spec/replication.md#options
//= type=test
//# A node of mode `primary` with a `top-id` MUST be refused.
//= docs/spec/replication.md#options
//= type=test
//# A node of mode `secondary` without a `top-id` MUST be refused with an error that names the
//# missing option.
#[test]
fn a_replication_node_has_a_top_exactly_when_it_is_secondary() {
    let role = |mode: &str, top: Option<&str>| {
        let mut arguments = json!({"driver": "replication", "mode": mode, "file": "f"});
        if let Some(top) = top {
            arguments["top-id"] = top.into();
        }
        let BlockdevDriver::Replication(options) = driver(&arguments) else {
            panic!("{arguments} adds a replication node");
        };
        options.role().map_err(|error| error.to_string())
    };
    assert_eq!(role("primary", None), Ok(ReplicationRole::Primary));
    let top_id = "t".to_owned();
    assert_eq!(
        role("secondary", Some("t")),
        Ok(ReplicationRole::Secondary { top_id })
    );
    let error = "The primary side does not support option top-id".to_owned();
    assert_eq!(role("primary", Some("t")), Err(error));
    assert_eq!(
        role("secondary", None),
        Err("Missing the option top-id".to_owned())
    );
}

//= docs/spec/replication.md#options
//= type=test
//# The driver MUST accept `mode`, `top-id` and our own `x-ai-forward-timeout`, and refuse every
//# other option by name.
//= docs/spec/replication.md#options
//= type=test
//# A node without `mode` MUST be refused with an error that names the missing option.
//= docs/spec/replication.md#options
//= type=test
//# A `mode` other than `primary` or `secondary` MUST be refused with an error that names the value.
#[test]
fn a_replication_node_takes_its_own_options_and_no_others() {
    let all = json!({
        "driver": "replication", "file": "f", "mode": "secondary", "top-id": "t",
        "x-ai-forward-timeout": 7,
    });
    let BlockdevDriver::Replication(options) = driver(&all) else {
        panic!("{all} adds a replication node");
    };
    assert_eq!(options.forward_timeout, Some(7));
    let refused = [
        (
            json!({"driver": "replication", "top-id": "t"}),
            "Parameter 'file' is missing",
        ),
        (
            json!({"driver": "replication", "file": "f", "top-id": "t"}),
            "Parameter 'mode' is missing",
        ),
        (
            json!({"driver": "replication", "file": "f", "mode": "both"}),
            "Parameter 'mode' does not accept value 'both'",
        ),
        (
            json!({"driver": "replication", "file": "f", "mode": "primary", "vote-threshold": 1}),
            "Parameter 'vote-threshold' is unexpected",
        ),
    ];
    for (arguments, error) in refused {
        assert_eq!(command("blockdev-add", &arguments).unwrap_err(), error);
    }
}

#[test]
fn the_booleans_of_xen_set_replication_spell_one_request() {
    let request = |enable, primary, failover: Option<bool>| {
        let mut arguments = json!({"enable": enable, "primary": primary});
        if let Some(failover) = failover {
            arguments["failover"] = failover.into();
        }
        let parsed = command("xen-set-replication", &arguments).unwrap();
        let Command::XenSetReplication(set) = parsed else {
            panic!("{parsed:?}")
        };
        set.request()
            .map_or_else(|error| error.to_string(), |request| format!("{request:?}"))
    };
    assert_eq!(request(true, true, None), "Start(Primary)");
    assert_eq!(request(true, false, None), "Start(Secondary)");
    assert_eq!(request(false, false, None), "Stop");
    assert_eq!(request(false, true, Some(false)), "Stop");
    assert_eq!(request(false, false, Some(true)), "Failover");
    let refused = "Parameter 'failover' is only for stopping replication";
    assert_eq!(request(true, false, Some(false)), refused);
    assert_eq!(request(true, true, Some(true)), refused);
}

#[test]
fn a_change_of_children_is_one_of_adding_and_removing() {
    let change = |arguments: Value| {
        let parsed = command("x-blockdev-change", &arguments).unwrap();
        let Command::BlockdevChange(change) = parsed else {
            panic!("{parsed:?}")
        };
        change
            .change()
            .map_or_else(|error| error.to_string(), |change| format!("{change:?}"))
    };
    assert_eq!(change(json!({"parent": "q", "node": "n"})), r#"Add("n")"#);
    assert_eq!(
        change(json!({"parent": "q", "child": "c"})),
        r#"Remove("c")"#
    );
    let neither = "Either child or node must be specified";
    assert_eq!(change(json!({"parent": "q"})), neither);
    let both = "The parameters child and node are in conflict";
    assert_eq!(
        change(json!({"parent": "q", "child": "c", "node": "n"})),
        both
    );
}
