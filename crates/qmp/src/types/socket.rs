//! Addresses of sockets, in QEMU's two forms.

use crate::define::{object, union};

union! {
    /// An address, as options and flags write it.
    pub enum SocketAddress by "type" as "SocketAddressType" {
        /// TCP.
        "inet" => Inet(InetSocketAddress),
        /// A unix socket.
        "unix" => Unix(UnixSocketAddress),
    }
}

object! {
    /// A TCP address.
    pub struct InetSocketAddress {
        /// A name or an address.
        "host" => host: String,
        /// A number.
        "port" => port: String,
    }
}

object! {
    /// A unix socket.
    pub struct UnixSocketAddress {
        /// Its path.
        "path" => path: String,
    }
}

union! {
    /// An address, as `nbd-server-start` writes it.
    pub enum SocketAddressLegacy by "type" as "SocketAddressType" {
        /// TCP.
        "inet" => Inet(InetSocketAddressData),
        /// A unix socket.
        "unix" => Unix(UnixSocketAddressData),
    }
}

object! {
    /// A TCP address, one level deeper.
    pub struct InetSocketAddressData {
        /// The address.
        "data" => data: InetSocketAddress,
    }
}

object! {
    /// A unix socket, one level deeper.
    pub struct UnixSocketAddressData {
        /// The address.
        "data" => data: UnixSocketAddress,
    }
}

impl From<SocketAddressLegacy> for SocketAddress {
    fn from(legacy: SocketAddressLegacy) -> Self {
        match legacy {
            SocketAddressLegacy::Inet(inet) => Self::Inet(inet.data),
            SocketAddressLegacy::Unix(unix) => Self::Unix(unix.data),
        }
    }
}

impl std::fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(inet) if inet.host.contains(':') => {
                write!(f, "[{}]:{}", inet.host, inet.port)
            }
            Self::Inet(inet) => write!(f, "{}:{}", inet.host, inet.port),
            Self::Unix(unix) => write!(f, "unix:{}", unix.path),
        }
    }
}
