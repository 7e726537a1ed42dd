//! Addresses of exports.
//!
//! | text | means |
//! |---|---|
//! | `nbd://host[:port]/export` | TCP; no host is localhost, no port is 10809 |
//! | `nbd+unix:///export?socket=/path` | a Unix socket |
//! | `nbds://…`, `nbds+unix://…` | the same with TLS required |
//! | `unix:/path` | a Unix socket, default export |
//!
//! Source: the NBD project's `doc/uri.md`, "NBD URI format". Characters may be written as `%41`.

use crate::wire::ExportName;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port of the NBD service.
const PORT: u16 = 10809;

/// The longest path a Unix socket can be bound to on Linux, in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// Where an export is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// The server.
    pub address: Address,
    /// Whether nothing but TLS will do.
    pub tls: bool,
    /// The export; empty for the default one.
    pub export: ExportName,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host, by name or address without brackets, and a port.
    Tcp(String, u16),
    /// A Unix socket: not empty, at most 107 bytes, without NUL.
    Unix(PathBuf),
}

/// Text that is no address of an export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an NBD address: {why}")]
pub struct InvalidUri {
    text: String,
    why: &'static str,
}

impl Address {
    /// The Unix socket at `path`.
    ///
    /// # Errors
    ///
    /// If no socket can have this path; the text says why.
    pub fn unix(path: impl AsRef<Path>) -> Result<Address, &'static str> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.is_empty() {
            return Err("the path of the socket is missing");
        }
        if bytes.len() > MAX_SOCKET_PATH {
            return Err("the path of a socket has at most 107 bytes");
        }
        if bytes.contains(&0) {
            return Err("the path of a socket must not contain NUL");
        }
        Ok(Address::Unix(path.to_owned()))
    }
}

impl FromStr for Uri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Uri, InvalidUri> {
        parse(text).map_err(|why| InvalidUri {
            text: crate::wire::display_text(text.as_bytes()),
            why,
        })
    }
}

fn parse(text: &str) -> Result<Uri, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Uri {
            address: Address::unix(path)?,
            tls: false,
            export: ExportName::default(),
        });
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("write nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or unix:PATH")?;
    let (tls, unix) = match scheme {
        "nbd" => (false, false),
        "nbds" => (true, false),
        "nbd+unix" => (false, true),
        "nbds+unix" => (true, true),
        _ => return Err("the scheme must be nbd, nbds, nbd+unix or nbds+unix"),
    };
    if rest.contains('#') {
        return Err("a fragment ('#') has no meaning here; write %23 in a name");
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let socket = socket(query)?;
    let address = match (unix, socket) {
        (true, Some(path)) if authority.is_empty() => Address::unix(path)?,
        (true, Some(_)) => return Err("a Unix socket has no host: write three slashes"),
        (true, None) => return Err("the path of the socket is missing: add ?socket=PATH"),
        (false, None) => tcp(authority)?,
        (false, Some(_)) => return Err("socket= needs the scheme nbd+unix or nbds+unix"),
    };
    let export = decode(path)?;
    let export = ExportName::try_from(export.as_str()).map_err(|malformed| malformed.0)?;
    Ok(Uri {
        address,
        tls,
        export,
    })
}

/// The value of `socket` in a query that may hold nothing else.
fn socket(query: &str) -> Result<Option<String>, &'static str> {
    let mut socket = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if key != "socket" {
            return Err("the only parameter known here is socket=PATH");
        }
        if socket.replace(decode(value)?).is_some() {
            return Err("socket= is given twice");
        }
    }
    Ok(socket)
}

/// `host`, `host:port` or `[v6]:port`.
fn tcp(authority: &str) -> Result<Address, &'static str> {
    if authority.contains('@') {
        return Err("a user name has no meaning here");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or("the closing bracket is missing")?;
            let port = rest.strip_prefix(':').or(rest.is_empty().then_some(""));
            (host, port.ok_or("a port begins with a colon")?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = match port {
        "" => PORT,
        port => port
            .parse()
            .map_err(|_| "a port is a number from 0 to 65535")?,
    };
    let host = if host.is_empty() {
        "localhost".to_owned()
    } else {
        decode(host)?
    };
    Ok(Address::Tcp(host, port))
}

/// Resolves `%41`.
fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let value = digit(rest.next())
            .zip(digit(rest.next()))
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            .ok_or("'%' must be followed by two hexadecimal digits")?;
        bytes.push(value);
    }
    String::from_utf8(bytes).map_err(|_| "it must be valid UTF-8")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::fmt::Write;

    fn table(uris: &[&str]) -> String {
        let mut table = String::new();
        for text in uris {
            match text.parse::<Uri>() {
                Ok(Uri {
                    address,
                    tls,
                    export,
                }) => writeln!(table, "{text} => {address} tls {tls} export {export}"),
                Err(error) => writeln!(table, "{error}"),
            }
            .unwrap();
        }
        table
    }

    #[test]
    fn addresses_of_every_kind_are_understood() {
        let table = table(&[
            "nbd://example.com",
            "nbd://example.com/",
            "nbd://example.com:1234/disk",
            "nbds://[fe80::1]:1234/a/b",
            "nbd://[::1]",
            "nbd:///disk",
            "nbd://localhost//absolute",
            "nbd://localhost/a%20b%2Fc%c3%a4",
            "nbd+unix:///disk?socket=/run/a%20b.sock",
            "nbds+unix:///?socket=/run/a.sock",
            "unix:/run/a%20b.sock",
        ]);
        expect![[r"
            nbd://example.com => example.com:10809 tls false export ''
            nbd://example.com/ => example.com:10809 tls false export ''
            nbd://example.com:1234/disk => example.com:1234 tls false export 'disk'
            nbds://[fe80::1]:1234/a/b => [fe80::1]:1234 tls true export 'a/b'
            nbd://[::1] => [::1]:10809 tls false export ''
            nbd:///disk => localhost:10809 tls false export 'disk'
            nbd://localhost//absolute => localhost:10809 tls false export '/absolute'
            nbd://localhost/a%20b%2Fc%c3%a4 => localhost:10809 tls false export 'a b/cä'
            nbd+unix:///disk?socket=/run/a%20b.sock => unix:/run/a b.sock tls false export 'disk'
            nbds+unix:///?socket=/run/a.sock => unix:/run/a.sock tls true export ''
            unix:/run/a%20b.sock => unix:/run/a%20b.sock tls false export ''
        "]]
        .assert_eq(&table);
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_right() {
        let long = format!("unix:/{}", "a".repeat(107));
        let name = format!("nbd://h/{}", "a".repeat(4097));
        let table = table(&[
            "/dev/sda",
            "http://example.com/",
            "nbd://h:port/",
            "nbd://h:70000/",
            "nbd://[::1/",
            "nbd://[::1]1/",
            "nbd://user@h/",
            "nbd://h/disk#1",
            "nbd://h/?socket=/a",
            "nbd+unix:///disk",
            "nbd+unix://host/disk?socket=/a",
            "nbd+unix:///disk?socket=/a&socket=/b",
            "nbd+unix:///disk?socket=",
            "nbds://h/?tls-certificates=/x",
            "nbd://h/%4",
            "nbd://h/%zz",
            "nbd://h/%ff",
            "nbd://h/%00",
            "unix:",
            "nbd+unix:///?socket=/a%00",
        ]);
        expect![[r"
            '/dev/sda' is not an NBD address: write nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or unix:PATH
            'http://example.com/' is not an NBD address: the scheme must be nbd, nbds, nbd+unix or nbds+unix
            'nbd://h:port/' is not an NBD address: a port is a number from 0 to 65535
            'nbd://h:70000/' is not an NBD address: a port is a number from 0 to 65535
            'nbd://[::1/' is not an NBD address: the closing bracket is missing
            'nbd://[::1]1/' is not an NBD address: a port begins with a colon
            'nbd://user@h/' is not an NBD address: a user name has no meaning here
            'nbd://h/disk#1' is not an NBD address: a fragment ('#') has no meaning here; write %23 in a name
            'nbd://h/?socket=/a' is not an NBD address: socket= needs the scheme nbd+unix or nbds+unix
            'nbd+unix:///disk' is not an NBD address: the path of the socket is missing: add ?socket=PATH
            'nbd+unix://host/disk?socket=/a' is not an NBD address: a Unix socket has no host: write three slashes
            'nbd+unix:///disk?socket=/a&socket=/b' is not an NBD address: socket= is given twice
            'nbd+unix:///disk?socket=' is not an NBD address: the path of the socket is missing
            'nbds://h/?tls-certificates=/x' is not an NBD address: the only parameter known here is socket=PATH
            'nbd://h/%4' is not an NBD address: '%' must be followed by two hexadecimal digits
            'nbd://h/%zz' is not an NBD address: '%' must be followed by two hexadecimal digits
            'nbd://h/%ff' is not an NBD address: it must be valid UTF-8
            'nbd://h/%00' is not an NBD address: an export name must not contain NUL
            'unix:' is not an NBD address: the path of the socket is missing
            'nbd+unix:///?socket=/a%00' is not an NBD address: the path of a socket must not contain NUL
        "]].assert_eq(&table);
        assert!(
            long.parse::<Uri>()
                .unwrap_err()
                .to_string()
                .ends_with("at most 107 bytes")
        );
        assert!(name.parse::<Uri>().unwrap_err().to_string().len() < 400);
    }
}
