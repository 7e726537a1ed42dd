//! Options: what a client asks for during the handshake.
//!
//! Source: NBD protocol, "Option types".

use super::hello::OPTS_MAGIC;
use super::{ContextQuery, ExportName, Fields, Malformed};
use std::fmt;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

/// The number of an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OptionCode(pub u32);

impl OptionCode {
    /// `NBD_OPT_EXPORT_NAME`
    pub const EXPORT_NAME: OptionCode = OptionCode(1);
    /// `NBD_OPT_ABORT`
    pub const ABORT: OptionCode = OptionCode(2);
    /// `NBD_OPT_LIST`
    pub const LIST: OptionCode = OptionCode(3);
    /// `NBD_OPT_STARTTLS`
    pub const STARTTLS: OptionCode = OptionCode(5);
    /// `NBD_OPT_INFO`
    pub const INFO: OptionCode = OptionCode(6);
    /// `NBD_OPT_GO`
    pub const GO: OptionCode = OptionCode(7);
    /// `NBD_OPT_STRUCTURED_REPLY`
    pub const STRUCTURED_REPLY: OptionCode = OptionCode(8);
    /// `NBD_OPT_LIST_META_CONTEXT`
    pub const LIST_META_CONTEXT: OptionCode = OptionCode(9);
    /// `NBD_OPT_SET_META_CONTEXT`
    pub const SET_META_CONTEXT: OptionCode = OptionCode(10);
    /// `NBD_OPT_EXTENDED_HEADERS`
    pub const EXTENDED_HEADERS: OptionCode = OptionCode(11);
}

impl fmt::Debug for OptionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            OptionCode::EXPORT_NAME => "EXPORT_NAME",
            OptionCode::ABORT => "ABORT",
            OptionCode::LIST => "LIST",
            OptionCode::STARTTLS => "STARTTLS",
            OptionCode::INFO => "INFO",
            OptionCode::GO => "GO",
            OptionCode::STRUCTURED_REPLY => "STRUCTURED_REPLY",
            OptionCode::LIST_META_CONTEXT => "LIST_META_CONTEXT",
            OptionCode::SET_META_CONTEXT => "SET_META_CONTEXT",
            OptionCode::EXTENDED_HEADERS => "EXTENDED_HEADERS",
            OptionCode(code) => return write!(f, "option {code}"),
        })
    }
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawOptionHeader {
    magic: U64,
    code: U32,
    length: U32,
}

/// What precedes the data of every option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option.
    pub code: OptionCode,
    /// Length of its data in bytes.
    pub length: u32,
}

impl OptionHeader {
    /// Length on the wire.
    pub const LENGTH: usize = 16;

    /// # Errors
    ///
    /// [`Malformed`] if the magic number is wrong: the stream is out of step.
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Result<OptionHeader, Malformed> {
        let raw: RawOptionHeader = zerocopy::transmute!(bytes);
        if raw.magic.get() != OPTS_MAGIC {
            return Err(Malformed("an option does not begin with IHAVEOPT"));
        }
        Ok(OptionHeader {
            code: OptionCode(raw.code.get()),
            length: raw.length.get(),
        })
    }

    /// The bytes to send.
    pub fn encode(self) -> impl IntoBytes + Immutable {
        RawOptionHeader {
            magic: OPTS_MAGIC.into(),
            code: self.code.0.into(),
            length: self.length.into(),
        }
    }
}

/// An item of information that `NBD_OPT_INFO` and `NBD_OPT_GO` can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoKind {
    /// `NBD_INFO_EXPORT`
    Export,
    /// `NBD_INFO_NAME`
    Name,
    /// `NBD_INFO_DESCRIPTION`
    Description,
    /// `NBD_INFO_BLOCK_SIZE`
    BlockSize,
}

impl InfoKind {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        match self {
            InfoKind::Export => 0,
            InfoKind::Name => 1,
            InfoKind::Description => 2,
            InfoKind::BlockSize => 3,
        }
    }

    /// The item with this number, if it is known.
    pub fn from_code(code: u16) -> Option<InfoKind> {
        match code {
            0 => Some(InfoKind::Export),
            1 => Some(InfoKind::Name),
            2 => Some(InfoKind::Description),
            3 => Some(InfoKind::BlockSize),
            _ => None,
        }
    }
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export in question.
    pub name: ExportName,
    /// What the client wants to know: known items only, each once.
    pub wanted: Vec<InfoKind>,
}

impl InfoRequest {
    fn parse(data: &[u8]) -> Result<InfoRequest, Malformed> {
        let mut fields = Fields(data);
        let name = ExportName::parse(fields.sized()?)?;
        let count = fields.u16()?;
        let mut wanted = Vec::new();
        for _ in 0..count {
            // Unknown items must be ignored; repeated ones are the client's fault, and harmless.
            if let Some(kind) = InfoKind::from_code(fields.u16()?)
                && !wanted.contains(&kind)
            {
                wanted.push(kind);
            }
        }
        fields.finish()?;
        Ok(InfoRequest { name, wanted })
    }

    fn encode(&self, data: &mut Vec<u8>) {
        put_sized(data, self.name.as_str().as_bytes());
        let count = u16::try_from(self.wanted.len()).expect("there are four kinds of information");
        data.extend_from_slice(&count.to_be_bytes());
        for kind in &self.wanted {
            data.extend_from_slice(&kind.code().to_be_bytes());
        }
    }
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaRequest {
    /// The export in question.
    pub name: ExportName,
    /// What is asked for.
    pub queries: Vec<ContextQuery>,
}

impl MetaRequest {
    fn parse(data: &[u8]) -> Result<MetaRequest, Malformed> {
        let mut fields = Fields(data);
        let name = ExportName::parse(fields.sized()?)?;
        let count = fields.u32()?;
        let mut queries = Vec::new();
        // Each query takes at least four bytes of the bounded data: this ends.
        for _ in 0..count {
            queries.push(ContextQuery::parse(fields.sized()?));
        }
        fields.finish()?;
        Ok(MetaRequest { name, queries })
    }

    fn encode(&self, data: &mut Vec<u8>) {
        put_sized(data, self.name.as_str().as_bytes());
        put_length(data, self.queries.len());
        for query in &self.queries {
            put_sized(data, query.text().as_bytes());
        }
    }
}

/// An option with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionRequest {
    /// Use this export and end the handshake; cannot be refused but by hanging up.
    ExportName(ExportName),
    /// End the connection.
    Abort,
    /// Name all exports.
    List,
    /// Go on over TLS.
    StartTls,
    /// Describe an export.
    Info(InfoRequest),
    /// Describe an export, use it and end the handshake.
    Go(InfoRequest),
    /// Use structured replies.
    StructuredReply,
    /// Name the metadata contexts of an export.
    ListMetaContext(MetaRequest),
    /// Select metadata contexts.
    SetMetaContext(MetaRequest),
    /// An option this implementation does not have.
    Unknown(OptionCode),
}

impl OptionRequest {
    /// The option in `data`, whose length has been bounded by the caller.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the data does not fit the option: the answer is `NBD_REP_ERR_INVALID`.
    pub fn parse(code: OptionCode, data: &[u8]) -> Result<OptionRequest, Malformed> {
        let without_data = |option| {
            if data.is_empty() {
                Ok(option)
            } else {
                Err(Malformed("this option takes no data"))
            }
        };
        match code {
            OptionCode::EXPORT_NAME => ExportName::parse(data).map(OptionRequest::ExportName),
            // Data with an abort is to be ignored, not rejected.
            OptionCode::ABORT => Ok(OptionRequest::Abort),
            OptionCode::LIST => without_data(OptionRequest::List),
            OptionCode::STARTTLS => without_data(OptionRequest::StartTls),
            OptionCode::INFO => InfoRequest::parse(data).map(OptionRequest::Info),
            OptionCode::GO => InfoRequest::parse(data).map(OptionRequest::Go),
            OptionCode::STRUCTURED_REPLY => without_data(OptionRequest::StructuredReply),
            OptionCode::LIST_META_CONTEXT => {
                MetaRequest::parse(data).map(OptionRequest::ListMetaContext)
            }
            OptionCode::SET_META_CONTEXT => {
                MetaRequest::parse(data).map(OptionRequest::SetMetaContext)
            }
            unknown => Ok(OptionRequest::Unknown(unknown)),
        }
    }

    /// Which option this is.
    pub fn code(&self) -> OptionCode {
        match self {
            OptionRequest::ExportName(_) => OptionCode::EXPORT_NAME,
            OptionRequest::Abort => OptionCode::ABORT,
            OptionRequest::List => OptionCode::LIST,
            OptionRequest::StartTls => OptionCode::STARTTLS,
            OptionRequest::Info(_) => OptionCode::INFO,
            OptionRequest::Go(_) => OptionCode::GO,
            OptionRequest::StructuredReply => OptionCode::STRUCTURED_REPLY,
            OptionRequest::ListMetaContext(_) => OptionCode::LIST_META_CONTEXT,
            OptionRequest::SetMetaContext(_) => OptionCode::SET_META_CONTEXT,
            OptionRequest::Unknown(code) => *code,
        }
    }

    /// Header and data, to be sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        match self {
            OptionRequest::ExportName(name) => data.extend_from_slice(name.as_str().as_bytes()),
            OptionRequest::Info(request) | OptionRequest::Go(request) => request.encode(&mut data),
            OptionRequest::ListMetaContext(request) | OptionRequest::SetMetaContext(request) => {
                request.encode(&mut data);
            }
            OptionRequest::Abort
            | OptionRequest::List
            | OptionRequest::StartTls
            | OptionRequest::StructuredReply
            | OptionRequest::Unknown(_) => {}
        }
        let header = OptionHeader {
            code: self.code(),
            length: length_of(&data),
        };
        let mut message = header.encode().as_bytes().to_vec();
        message.append(&mut data);
        message
    }
}

/// The length of our own data, which is far below 4 GiB.
pub(super) fn length_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("our own messages are short")
}

fn put_length(data: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("our own messages are short");
    data.extend_from_slice(&length.to_be_bytes());
}

/// Appends a length of 32 bits and the bytes.
pub(super) fn put_sized(data: &mut Vec<u8>, bytes: &[u8]) {
    put_length(data, bytes.len());
    data.extend_from_slice(bytes);
}
