//! Tests of the wire types: bytes as the protocol document draws them, and back.

use super::*;
use proptest::prelude::*;
use std::fmt::Write;
use zerocopy::IntoBytes;

/// Words of 32 bits.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push(' ');
        }
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

#[test]
fn headers_lie_on_the_wire_as_the_document_draws_them() {
    let request = RequestHeader {
        flags: CommandFlags::FUA,
        command: CommandCode::WriteZeroes,
        cookie: Cookie(0x0102_0304_0506_0708),
        offset: 0x1000,
        length: 0x200,
    };
    let chunk = ChunkHeader {
        flags: ChunkFlags::DONE,
        kind: ChunkKind::ErrorOffset,
        cookie: Cookie(1),
        length: 14,
    };
    let simple = SimpleReply {
        cookie: Cookie(2),
        error: Some(crate::Errno::NoSpc),
    };
    let option = OptionHeader {
        code: OptionCode::GO,
        length: 6,
    };
    let lines = [
        hex(request.encode().as_bytes()),
        hex(simple.encode().as_bytes()),
        hex(chunk.encode().as_bytes()),
        hex(option.encode().as_bytes()),
        hex(&OptionReply::Ack.encode(OptionCode::GO)),
        hex(
            &OptionReply::Info(Info::Export(512, TransmissionFlags::HAS_FLAGS))
                .encode(OptionCode::GO),
        ),
    ];
    expect_test::expect![[r"
        25609513 00010006 01020304 05060708 00000000 00001000 00000200
        67446698 0000001c 00000000 00000002
        668e33ef 00018002 00000000 00000001 0000000e
        49484156 454f5054 00000007 00000006
        0003e889 045565a9 00000007 00000001 00000000
        0003e889 045565a9 00000007 00000003 0000000c 00000000 00000000 02000001
    "]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

fn text() -> impl Strategy<Value = String> {
    "[a-z/ äß]{0,20}"
}

fn export_name() -> impl Strategy<Value = ExportName> {
    text().prop_map(|text| ExportName::try_from(text.as_str()).unwrap())
}

fn option() -> impl Strategy<Value = OptionRequest> {
    let info = |name| InfoRequest {
        name,
        wanted: vec![InfoKind::BlockSize, InfoKind::Name],
    };
    let meta = |name| MetaRequest {
        name,
        queries: vec![
            ContextQuery::Base,
            ContextQuery::Qemu,
            ContextQuery::Context(MetaContext::AllocationDepth),
        ],
    };
    prop_oneof![
        export_name().prop_map(OptionRequest::ExportName),
        export_name().prop_map(move |name| OptionRequest::Info(info(name))),
        export_name().prop_map(move |name| OptionRequest::Go(info(name))),
        export_name().prop_map(move |name| OptionRequest::ListMetaContext(meta(name))),
        export_name().prop_map(move |name| OptionRequest::SetMetaContext(meta(name))),
        Just(OptionRequest::Abort),
        Just(OptionRequest::List),
        Just(OptionRequest::StartTls),
        Just(OptionRequest::StructuredReply),
        (12..u32::MAX).prop_map(|code| OptionRequest::Unknown(OptionCode(code))),
    ]
}

fn option_reply() -> impl Strategy<Value = OptionReply> {
    prop_oneof![
        Just(OptionReply::Ack),
        (export_name(), text()).prop_map(|(name, text)| OptionReply::Server(name, text)),
        (any::<u64>(), any::<u16>()).prop_map(|(size, flags)| OptionReply::Info(Info::Export(
            size,
            TransmissionFlags::from_bits(flags)
        ))),
        export_name().prop_map(|name| OptionReply::Info(Info::Name(name))),
        text().prop_map(|text| OptionReply::Info(Info::Description(text))),
        Just(OptionReply::Info(Info::BlockSize(BlockSizes::SECTORS))),
        (any::<u32>(), text()).prop_map(|(id, text)| OptionReply::MetaContext(id, text)),
        (11..1_u32 << 31, text())
            .prop_map(|(code, text)| OptionReply::Error(RepError::Other(code), text)),
        text().prop_map(|text| OptionReply::Error(RepError::TooBig, text)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn options_survive_the_wire(option in option()) {
        let bytes = option.encode();
        let (header, data) = bytes.split_first_chunk().unwrap();
        let header = OptionHeader::parse(*header).unwrap();
        prop_assert_eq!(data.len(), usize::try_from(header.length).unwrap());
        prop_assert_eq!(OptionRequest::parse(header.code, data), Ok(option));
    }

    #[test]
    fn option_replies_survive_the_wire(reply in option_reply(), code in any::<u32>()) {
        let bytes = reply.encode(OptionCode(code));
        let (header, data) = bytes.split_first_chunk().unwrap();
        let header = ReplyHeader::parse(*header).unwrap();
        prop_assert_eq!(header.option, OptionCode(code));
        prop_assert_eq!(data.len(), usize::try_from(header.length).unwrap());
        prop_assert_eq!(OptionReply::parse(header.kind, data), Ok(reply));
    }

    #[test]
    fn requests_survive_the_wire(
        (flags, command) in any::<(u16, u16)>(),
        (cookie, offset, length) in any::<(u64, u64, u32)>(),
    ) {
        let request = RequestHeader {
            flags: CommandFlags::from_bits(flags),
            command: CommandCode::from_code(command),
            cookie: Cookie(cookie),
            offset,
            length,
        };
        let bytes = request.encode().as_bytes().to_vec();
        prop_assert_eq!(RequestHeader::parse(bytes.try_into().unwrap()), Ok(request));
    }

    #[test]
    fn bodies_of_any_bytes_are_parsed_or_refused(
        code in 0..20_u32,
        kind in prop_oneof![0..8_u32, any::<u32>()],
        chunk in prop_oneof![0..8_u16, any::<u16>()],
        data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = OptionRequest::parse(OptionCode(code), &data);
        let _ = OptionReply::parse(kind, &data);
        if let Ok(kind) = ChunkKind::from_code(chunk) {
            prop_assert_eq!(kind.code(), chunk);
            let _ = Chunk::parse(kind, &data, 4);
        }
    }
}
