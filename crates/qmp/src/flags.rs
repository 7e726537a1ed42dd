//! The flags shared with the storage daemon, from text to typed options.
//!
//! Each takes JSON (a leading `{`) or `key=value,…`; both are held against the same shape as the
//! arguments of commands. A word without `=` at the start is the value of the implied key.

use crate::Error;
use crate::check::{Dialect, decode};
use crate::keyval::{self, BareWords};
use crate::shape::Describe;
use crate::types::{
    BlockExportOptions, BlockdevOptions, ChardevOptions, MonitorOptions, NbdServerOptions,
    ObjectOptions,
};
use serde::de::DeserializeOwned;

/// Reads what follows `--blockdev`; the implied key is `driver`.
///
/// # Errors
///
/// The text is malformed, or an option is missing, unknown or without meaning; it is named.
pub fn blockdev(text: &str) -> Result<BlockdevOptions, Error> {
    read(text, Some("driver"))
}

/// Reads what follows `--export`; the implied key is `type`.
///
/// # Errors
///
/// As [`blockdev`].
pub fn export(text: &str) -> Result<BlockExportOptions, Error> {
    read(text, Some("type"))
}

/// Reads what follows `--nbd-server`; there is no implied key.
///
/// # Errors
///
/// As [`blockdev`].
pub fn nbd_server(text: &str) -> Result<NbdServerOptions, Error> {
    read(text, None)
}

/// Reads what follows `--monitor`; the implied key is `chardev`.
///
/// # Errors
///
/// As [`blockdev`].
pub fn monitor(text: &str) -> Result<MonitorOptions, Error> {
    read(text, Some("chardev"))
}

/// Reads what follows `--object`; the implied key is `qom-type`.
///
/// # Errors
///
/// As [`blockdev`].
pub fn object(text: &str) -> Result<ObjectOptions, Error> {
    read(text, Some("qom-type"))
}

/// Reads what follows `--chardev`; the implied key is `backend`.
///
/// This flag is of an older kind: a word `server` means `server=on`, `nowait` means `wait=off`.
///
/// # Errors
///
/// As [`blockdev`].
pub fn chardev(text: &str) -> Result<ChardevOptions, Error> {
    decode(
        keyval::parse(text, Some("backend"), BareWords::Switches)?,
        Dialect::Flags,
    )
}

fn read<T: Describe + DeserializeOwned>(text: &str, implied: Option<&str>) -> Result<T, Error> {
    if text.starts_with('{') {
        let value = crate::framing::parse(text);
        let value = value.map_err(|error| Error::generic(error.to_string()))?;
        return decode(value, Dialect::Json);
    }
    decode(
        keyval::parse(text, implied, BareWords::Refused)?,
        Dialect::Flags,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SocketAddress;
    use expect_test::expect;
    use serde_json::json;

    fn wire(options: Result<impl serde::Serialize, Error>) -> serde_json::Value {
        serde_json::to_value(options.unwrap()).unwrap()
    }

    #[test]
    fn a_line_for_the_storage_daemon_runs_unchanged() {
        assert_eq!(
            wire(blockdev(
                "driver=raw,node-name=r,offset=64k,size=1.5M,read-only=on,\
                 file.driver=file,file.filename=/a,,b,file.cache.direct=yes,file.aio=io_uring"
            )),
            json!({
                "driver": "raw", "node-name": "r", "offset": 65536, "size": 1_572_864,
                "read-only": true,
                "file": {
                    "driver": "file", "filename": "/a,b", "cache": {"direct": true},
                    "aio": "io_uring",
                },
            })
        );
        assert_eq!(
            wire(blockdev(
                "quorum,node-name=q,vote-threshold=1,read-pattern=fifo,children.0=a,\
                 children.1.driver=nbd,children.1.server.type=inet,children.1.server.host=h,\
                 children.1.server.port=10809,children.1.reconnect-delay=5"
            )),
            json!({
                "driver": "quorum", "node-name": "q", "vote-threshold": 1, "read-pattern": "fifo",
                "children": ["a", {
                    "driver": "nbd", "reconnect-delay": 5,
                    "server": {"type": "inet", "host": "h", "port": "10809"},
                }],
            })
        );
        assert_eq!(
            wire(export("nbd,id=e,node-name=n,name=disk,writable=on")),
            json!({"type": "nbd", "id": "e", "node-name": "n", "name": "disk", "writable": true})
        );
        assert_eq!(
            wire(nbd_server("addr.type=unix,addr.path=/s,max-connections=3")),
            json!({"addr": {"type": "unix", "path": "/s"}, "max-connections": 3})
        );
        assert_eq!(wire(monitor("m")), json!({"chardev": "m"}));
        assert_eq!(
            wire(object("iothread,id=i")),
            json!({"qom-type": "iothread", "id": "i"})
        );
    }

    #[test]
    fn json_and_keys_mean_the_same() {
        let json = r#"{"driver": "null-co", "node-name": "n", "size": 65536, "read-zeroes": true}"#;
        let keys = "null-co,node-name=n,size=64k,read-zeroes=on";
        assert_eq!(blockdev(json), blockdev(keys));
    }

    #[test]
    fn a_chardev_takes_switches() {
        for text in [
            "socket,id=c,path=/s,server=on,wait=off",
            "socket,id=c,path=/s,server,nowait",
            "backend=socket,id=c,path=/s,server=yes,wait=no",
        ] {
            let chardev = chardev(text).unwrap();
            let crate::types::ChardevBackend::Socket(socket) = chardev.backend;
            let Ok(SocketAddress::Unix(unix)) = socket.listen_address() else {
                panic!("{text}")
            };
            assert_eq!(
                (chardev.id.as_str(), unix.path.as_str()),
                ("c", "/s"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_monitor_socket_listens_in_one_place_and_waits_for_nobody() {
        let mut out = String::new();
        for text in [
            "path=/s",
            "path=/s,server=on",
            "server=on,wait=off",
            "host=h,server=on,wait=off",
            "port=1,server=on,wait=off",
            "path=/s,host=h,port=1,server=on,wait=off",
            "host=::1,port=1,server=on,wait=off",
        ] {
            let chardev = chardev(&format!("socket,id=c,{text}")).unwrap();
            let crate::types::ChardevBackend::Socket(socket) = chardev.backend;
            let address = socket.listen_address();
            let said = address.map_or_else(|e| e.to_string(), |address| address.to_string());
            out = format!("{out}{text}: {said}\n");
        }
        expect![[r"
            path=/s: Parameter 'server' must be on: a monitor listens
            path=/s,server=on: Parameter 'wait' must be off: the daemon waits for nobody
            server=on,wait=off: Parameter 'path' is missing
            host=h,server=on,wait=off: Parameter 'port' is missing
            port=1,server=on,wait=off: Parameter 'host' is missing
            path=/s,host=h,port=1,server=on,wait=off: Parameters 'path' and 'host', 'port' exclude each other
            host=::1,port=1,server=on,wait=off: [::1]:1
        "]]
        .assert_eq(&out);
    }

    /// As the storage daemon 10.0.2 says it, except that sizes may carry suffixes, that full paths
    /// are named, and that chardevs speak like the rest.
    #[test]
    fn mistakes_are_named() {
        let mut out = String::new();
        for (flag, read) in FLAGS {
            for text in MISTAKES
                .lines()
                .filter_map(|line| line.trim().strip_prefix(flag))
            {
                let said = read(text.trim()).unwrap_err();
                out = format!("{out}{flag} {}: {said}\n", text.trim());
            }
        }
        expect![[r#"
            --blockdev file,node-name=a: Parameter 'filename' is missing
            --blockdev file,filename=f,zoo=1: Parameter 'zoo' is unexpected
            --blockdev raw,file=x,file.driver=file: Parameters 'file.*' used inconsistently
            --blockdev quorum,vote-threshold=1,children.1=x: Parameter 'children.0' is missing
            --blockdev quorum,vote-threshold=1,children.0.driver=null-co,children.0.zz=1: Parameter 'children.0.zz' is unexpected
            --blockdev null-co,read-zeroes=maybe: Parameter 'read-zeroes' expects 'on' or 'off'
            --blockdev null-co,size=64q: Parameter 'size' expects a size: a number of bytes, or one with k, M, G, T, P or E after it
            --blockdev null-co,size=9E: Parameter 'size' expects a size of less than 8 EiB
            --blockdev null-co,latency-ns=1k: Parameter 'latency-ns' expects integer
            --blockdev null-co,=1: Invalid parameter ''
            --blockdev ,driver=null-co: Invalid parameter ''
            --blockdev null-co,read-zeroes: Expected '=' after parameter 'read-zeroes'
            --blockdev {"driver":"null-co","size":"64k"}: Invalid parameter type for 'size', expected: integer
            --blockdev {"driver": JSON parse error, premature end
            --blockdev {}x: JSON parse error, expecting exactly one value
            --export nbd,id=e: Parameter 'node-name' is missing
            --export type=foo: Parameter 'type' does not accept value 'foo'
            --export nbd,id=e,node-name=n,zork=1: Parameter 'zork' is unexpected
            --nbd-server addr.type=unix: Parameter 'addr.path' is missing
            --nbd-server addr.type=vnix: Parameter 'addr.type' does not accept value 'vnix'
            --nbd-server addr=3: Invalid parameter type for 'addr', expected: object
            --nbd-server addr.type=unix,addr.path=p,max-connections=x: Parameter 'max-connections' expects integer
            --nbd-server unix: Expected '=' after parameter 'unix'
            --chardev pty,id=c: Parameter 'backend' does not accept value 'pty'
            --chardev socket,path=p: Parameter 'id' is missing
            --chardev socket,id=c,path=p,zoo=1: Parameter 'zoo' is unexpected
            --chardev socket,id=c,path=p,server=maybe: Parameter 'server' expects 'on' or 'off'
            --monitor mode=x,chardev=y: Parameter 'mode' does not accept value 'x'
            --monitor x,zoo=1: Parameter 'zoo' is unexpected
            --object secret,id=s: Parameter 'qom-type' does not accept value 'secret'
            --object iothread: Parameter 'id' is missing
        "#]]
        .assert_eq(&out);
    }

    type Reader = fn(&str) -> Result<(), Error>;

    const FLAGS: [(&str, Reader); 6] = [
        ("--blockdev", |text| blockdev(text).map(drop)),
        ("--export", |text| export(text).map(drop)),
        ("--nbd-server", |text| nbd_server(text).map(drop)),
        ("--chardev", |text| chardev(text).map(drop)),
        ("--monitor", |text| monitor(text).map(drop)),
        ("--object", |text| object(text).map(drop)),
    ];

    const MISTAKES: &str = r#"
        --blockdev file,node-name=a
        --blockdev file,filename=f,zoo=1
        --blockdev raw,file=x,file.driver=file
        --blockdev quorum,vote-threshold=1,children.1=x
        --blockdev quorum,vote-threshold=1,children.0.driver=null-co,children.0.zz=1
        --blockdev null-co,read-zeroes=maybe
        --blockdev null-co,size=64q
        --blockdev null-co,size=9E
        --blockdev null-co,latency-ns=1k
        --blockdev null-co,=1
        --blockdev ,driver=null-co
        --blockdev null-co,read-zeroes
        --blockdev {"driver":"null-co","size":"64k"}
        --blockdev {"driver"
        --blockdev {}x
        --export nbd,id=e
        --export type=foo
        --export nbd,id=e,node-name=n,zork=1
        --nbd-server addr.type=unix
        --nbd-server addr.type=vnix
        --nbd-server addr=3
        --nbd-server addr.type=unix,addr.path=p,max-connections=x
        --nbd-server unix
        --chardev pty,id=c
        --chardev socket,path=p
        --chardev socket,id=c,path=p,zoo=1
        --chardev socket,id=c,path=p,server=maybe
        --monitor mode=x,chardev=y
        --monitor x,zoo=1
        --object secret,id=s
        --object iothread
        "#;
}
