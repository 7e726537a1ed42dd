//! Sockets of the host: what arrives, what is refused, what is left behind.

use crate::host::errno_of;
use crate::os;
use crate::ports::{Address, Listener, Network, Ports, Stream};
use block::Buffer;
use bytes::Bytes;
use std::path::Path;
use std::rc::Rc;

fn unix(path: &Path) -> Address {
    Address::Unix(path.to_owned())
}

fn loopback(port: u16) -> Address {
    Address::Inet {
        host: "127.0.0.1".into(),
        port,
    }
}

/// Both ends of a connection to `listener`.
async fn pair(network: &dyn Network, listener: &dyn Listener) -> (Rc<dyn Stream>, Rc<dyn Stream>) {
    let address = listener.address();
    let (client, server) = tokio::join!(network.connect(&address), listener.accept());
    (client.unwrap(), server.unwrap())
}

/// Reads until the peer has closed.
async fn read_all(stream: &dyn Stream) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let buffer = stream.read(Buffer::with_capacity(65536)).await.unwrap();
        if buffer.is_empty() {
            return all;
        }
        all.extend_from_slice(buffer.filled());
    }
}

fn run<Fut: Future<Output = ()>>(test: impl FnOnce(Ports) -> Fut) {
    os::run(test).unwrap();
}

#[test]
fn more_parts_and_bytes_than_one_call_takes_arrive_in_order_over_either_family() {
    run(|ports| async move {
        let directory = tempfile::tempdir().unwrap();
        for address in [unix(&directory.path().join("s")), loopback(0)] {
            let listener = ports.network.listen(&address).await.unwrap();
            let (client, server) = pair(&*ports.network, &*listener).await;
            let parts: Vec<Bytes> = (0..1000_usize)
                .map(|i| vec![u8::try_from(i % 256).unwrap(); i * 5 % 7000].into())
                .collect();
            let expected = parts.concat();
            let send = async {
                client.write(parts).await.unwrap();
                client.shutdown();
            };
            let (read, ()) = tokio::join!(read_all(&*server), send);
            assert!(read == expected, "{} of {}", read.len(), expected.len());
        }
    });
}

#[test]
fn shutdown_ends_a_pending_read_and_a_pending_write_at_once() {
    run(|ports| async move {
        let listener = ports.network.listen(&loopback(0)).await.unwrap();
        let (client, _server) = pair(&*ports.network, &*listener).await;
        let endless = vec![Bytes::from(vec![0; 32 << 20])];
        let (read, written, ()) = tokio::join!(
            client.read(Buffer::with_capacity(4096)),
            client.write(endless),
            async {
                tokio::task::yield_now().await;
                client.shutdown();
            }
        );
        assert!(read.is_err());
        assert!(written.is_err());
    });
}

#[test]
fn writing_to_a_peer_that_is_gone_fails_and_raises_no_signal() {
    run(|ports| async move {
        let listener = ports.network.listen(&loopback(0)).await.unwrap();
        let (client, server) = pair(&*ports.network, &*listener).await;
        drop(server);
        let mut result = Ok(());
        while result.is_ok() {
            result = client.write(vec![Bytes::from_static(&[0; 4096])]).await;
        }
    });
}

#[test]
fn a_listeners_socket_goes_with_it_and_a_stale_one_is_replaced() {
    run(|ports| async move {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        // Left behind by a program that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = ports.network.listen(&unix(&path)).await.unwrap();
        pair(&*ports.network, &*listener).await;
        drop(listener);
        assert!(!path.exists());
    });
}

#[test]
fn a_socket_somebody_listens_on_is_left_to_them() {
    run(|ports| async move {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = ports.network.listen(&unix(&path)).await.unwrap();
        let refused = ports.network.listen(&unix(&path)).await.err().unwrap();
        assert_eq!(errno_of(&refused), Some(libc::EADDRINUSE));
        assert_eq!(
            refused.to_string(),
            format!(
                "cannot listen on unix socket '{}': another program listens there; stop it or \
                 choose another",
                path.display()
            )
        );
        pair(&*ports.network, &*first).await;
        // Somebody else's socket of the same name is not ours to remove.
        std::fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    });
}

#[test]
fn a_file_that_is_no_socket_is_not_overwritten() {
    run(|ports| async move {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        std::fs::write(&path, "precious").unwrap();
        let refused = ports.network.listen(&unix(&path)).await.err().unwrap();
        let expected = "a file of that name exists and is no socket; remove it or choose another";
        assert!(refused.to_string().ends_with(expected), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn a_path_that_is_too_long_is_refused_with_the_limit() {
    run(|ports| async move {
        let longest = format!("/tmp/{}", "x".repeat(103));
        let refused = ports
            .network
            .listen(&unix(Path::new(&longest)))
            .await
            .err()
            .unwrap();
        assert_eq!(
            refused.to_string(),
            format!(
                "the path of unix socket '{longest}' has 108 bytes, 107 are possible; choose a \
                 shorter one"
            )
        );
        let refused = ports
            .network
            .connect(&unix(Path::new(&longest)))
            .await
            .err()
            .unwrap();
        assert_eq!(errno_of(&refused), Some(libc::ENAMETOOLONG));
    });
}

#[test]
fn a_port_in_use_is_refused_by_number() {
    run(|ports| async move {
        let first = ports.network.listen(&loopback(0)).await.unwrap();
        let Address::Inet { port, .. } = first.address() else {
            unreachable!("it listens on TCP");
        };
        assert_ne!(port, 0);
        let refused = ports.network.listen(&loopback(port)).await.err().unwrap();
        assert_eq!(
            refused.to_string(),
            format!(
                "cannot listen on 127.0.0.1:{port}: another program listens there; stop it or \
                 choose another"
            )
        );
        drop(first);
        let refused = ports.network.connect(&loopback(port)).await.err().unwrap();
        assert_eq!(
            refused.to_string(),
            format!("cannot connect to 127.0.0.1:{port}: connection refused")
        );
    });
}
