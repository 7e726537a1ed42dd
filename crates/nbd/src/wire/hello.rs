//! The first words of a connection, and the reply to `NBD_OPT_EXPORT_NAME`.
//!
//! Source: NBD protocol, "Newstyle negotiation".

use super::{ClientFlags, HandshakeFlags, Malformed, TransmissionFlags};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

/// `NBDMAGIC`.
const INIT_PASSWD: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
pub(super) const OPTS_MAGIC: u64 = 0x4948_4156_454F_5054;
/// Follows `NBDMAGIC` in the old style.
const CLISERV_MAGIC: u64 = 0x0000_4202_8186_1253;

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawServerHello {
    magic: U64,
    style: U64,
    flags: U16,
}

/// The server's greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// What the server offers.
    pub flags: HandshakeFlags,
}

impl ServerHello {
    /// Length on the wire.
    pub const LENGTH: usize = 18;

    /// # Errors
    ///
    /// [`Malformed`] if this is not the newstyle greeting.
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Result<ServerHello, Malformed> {
        let raw: RawServerHello = zerocopy::transmute!(bytes);
        if raw.magic.get() != INIT_PASSWD {
            return Err(Malformed(
                "the greeting does not begin with NBDMAGIC: not an NBD server",
            ));
        }
        match raw.style.get() {
            OPTS_MAGIC => Ok(ServerHello {
                flags: HandshakeFlags::from_bits(raw.flags.get()),
            }),
            CLISERV_MAGIC => Err(Malformed("the server speaks only the oldstyle handshake")),
            _ => Err(Malformed(
                "the greeting names an unknown style of handshake",
            )),
        }
    }

    /// The bytes to send.
    pub fn encode(self) -> impl IntoBytes + Immutable {
        RawServerHello {
            magic: INIT_PASSWD.into(),
            style: OPTS_MAGIC.into(),
            flags: self.flags.bits().into(),
        }
    }
}

/// The client's answer to the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// What the client accepts.
    pub flags: ClientFlags,
}

impl ClientHello {
    /// Length on the wire.
    pub const LENGTH: usize = 4;

    /// # Errors
    ///
    /// [`Malformed`] if a flag is unknown: then the server must drop the connection (NBD
    /// protocol, "Client flags").
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Result<ClientHello, Malformed> {
        let flags = ClientFlags::from_bits(u32::from_be_bytes(bytes));
        if flags.exceeds(ClientFlags::ALL) {
            return Err(Malformed("the client set an unknown handshake flag"));
        }
        Ok(ClientHello { flags })
    }

    /// The bytes to send.
    pub fn encode(self) -> impl IntoBytes + Immutable {
        U32::new(self.flags.bits())
    }
}

/// The end of a handshake by `NBD_OPT_EXPORT_NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportNameReply {
    /// Size of the export in bytes.
    pub size: u64,
    /// What the export can do.
    pub flags: TransmissionFlags,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawExportNameReply {
    size: U64,
    flags: U16,
}

impl ExportNameReply {
    /// Length on the wire, without the padding.
    pub const LENGTH: usize = 10;

    /// Zeroes that follow unless both sides set `NO_ZEROES`.
    pub const PADDING: [u8; 124] = [0; 124];

    /// Every value is valid here; the session judges them.
    pub fn parse(bytes: [u8; Self::LENGTH]) -> ExportNameReply {
        let raw: RawExportNameReply = zerocopy::transmute!(bytes);
        ExportNameReply {
            size: raw.size.get(),
            flags: TransmissionFlags::from_bits(raw.flags.get()),
        }
    }

    /// The bytes to send, without the padding.
    pub fn encode(self) -> impl IntoBytes + Immutable {
        RawExportNameReply {
            size: self.size.into(),
            flags: self.flags.bits().into(),
        }
    }
}
