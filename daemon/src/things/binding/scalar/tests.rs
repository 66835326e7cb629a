use super::*;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn every_type_decodes_in_every_order() {
    let layout = |kind, big_bytes, big_words| Layout {
        big_bytes,
        big_words,
        ..Layout::plain(kind)
    };
    for (layout, bytes, value) in [
        (
            layout(Kind::U16, true, true),
            vec![0x12, 0x34],
            json!(0x1234),
        ),
        (layout(Kind::I16, true, true), vec![0xff, 0xfe], json!(-2)),
        (
            layout(Kind::U16, false, true),
            vec![0x34, 0x12],
            json!(0x1234),
        ),
        (
            layout(Kind::U32, true, true),
            vec![0x12, 0x34, 0x56, 0x78],
            json!(0x1234_5678),
        ),
        (
            layout(Kind::U32, true, false),
            vec![0x56, 0x78, 0x12, 0x34],
            json!(0x1234_5678),
        ),
        (
            layout(Kind::U32, false, true),
            vec![0x34, 0x12, 0x78, 0x56],
            json!(0x1234_5678),
        ),
        (
            layout(Kind::U32, false, false),
            vec![0x78, 0x56, 0x34, 0x12],
            json!(0x1234_5678),
        ),
        (layout(Kind::I32, true, true), vec![0xff; 4], json!(-1)),
        (
            layout(Kind::F32, true, true),
            vec![0x41, 0xad, 0x99, 0x9a],
            json!(21.7),
        ),
        (
            layout(Kind::F32, true, false),
            vec![0x99, 0x9a, 0x41, 0xad],
            json!(21.7),
        ),
        (
            layout(Kind::F64, true, true),
            21.7f64.to_be_bytes().to_vec(),
            json!(21.7),
        ),
        (layout(Kind::I64, true, true), vec![0xff; 8], json!(-1)),
        (layout(Kind::I8, true, true), vec![0x80], json!(-128)),
        (
            layout(Kind::Text, true, true),
            b"Kiln\0\0".to_vec(),
            json!("Kiln"),
        ),
        (
            layout(Kind::Bytes, true, true),
            vec![0xca, 0xfe],
            json!("cafe"),
        ),
    ] {
        assert_eq!(layout.decode(&bytes, false).unwrap(), value, "{layout:?}");
        assert_eq!(
            layout.encode(&value, bytes.len(), None).unwrap(),
            bytes,
            "{layout:?}"
        );
    }
}

#[test]
fn a_decimal_scale_leaves_no_noise_and_comes_back() {
    let layout = Layout {
        scale: 0.1,
        offset: -40.0,
        ..Layout::plain(Kind::U16)
    };
    assert_eq!(
        layout.decode(&617u16.to_be_bytes(), false).unwrap(),
        json!(21.7)
    );
    assert_eq!(
        layout.encode(&json!(21.7), 2, None).unwrap(),
        617u16.to_be_bytes()
    );
}

#[test]
fn writing_a_bit_field_keeps_its_neighbours() {
    let layout = Layout {
        bits: Some(BitField { first: 4, count: 3 }),
        ..Layout::plain(Kind::U16)
    };
    assert_eq!(layout.decode(&[0xab, 0xcd], false).unwrap(), json!(4));
    assert_eq!(
        layout.encode(&json!(1), 2, Some(&[0xab, 0xcd])).unwrap(),
        [0xab, 0x9d]
    );
    assert_eq!(
        layout.encode(&json!(8), 2, None),
        Err(EncodeError::Range(8.0))
    );
}

#[test]
fn what_does_not_fit_is_refused_and_never_clamped() {
    let layout = Layout::plain(Kind::I16);
    assert_eq!(
        layout.encode(&json!(32768), 2, None),
        Err(EncodeError::Range(32768.0))
    );
    assert_eq!(layout.encode(&json!("x"), 2, None), Err(EncodeError::Type));
    let text = Layout::plain(Kind::Text);
    assert_eq!(
        text.encode(&json!("abc"), 2, None),
        Err(EncodeError::TooLong { bytes: 3, limit: 2 })
    );
    assert_eq!(
        Layout::plain(Kind::F32).decode(&[0x7f, 0xc0, 0, 0], false),
        Err(DecodeError::Number)
    );
    assert_eq!(
        Layout::plain(Kind::U64).decode(&[0xff; 8], false),
        Err(DecodeError::Number)
    );
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::I8,
        Kind::U8,
        Kind::I16,
        Kind::U16,
        Kind::I32,
        Kind::U32,
        Kind::I64,
        Kind::U64,
        Kind::F32,
        Kind::F64,
        Kind::Text,
        Kind::Bytes,
    ])
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(kind in kinds(), bytes in prop::collection::vec(any::<u8>(), 0..12),
                                       scale in prop::num::f64::NORMAL, big in any::<(bool, bool)>()) {
        let layout = Layout { scale, big_bytes: big.0, big_words: big.1, ..Layout::plain(kind) };
        if let Ok(value) = layout.decode(&bytes, false) {
            let _ = layout.encode(&value, bytes.len(), Some(&bytes));
        }
    }

    #[test]
    fn whole_numbers_survive_every_order(value in any::<i32>(), big in any::<(bool, bool)>()) {
        let layout = Layout { big_bytes: big.0, big_words: big.1, ..Layout::plain(Kind::I32) };
        let bytes = layout.encode(&json!(value), 4, None).unwrap();
        prop_assert_eq!(layout.decode(&bytes, false).unwrap(), json!(value));
    }
}
