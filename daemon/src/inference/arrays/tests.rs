//! Claims about arrays outside of ONNX Runtime.

use super::*;

#[test]
fn what_is_joined_along_the_first_axis_comes_apart_again() {
    let first = Array::f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let second = Array::f32([1, 3], vec![7.0, 8.0, 9.0]);
    let mut all = first.clone();
    assert!(all.append(&second));
    assert_eq!(all.shape, [3, 3]);
    assert_eq!(
        (all.rows(0, 2), all.rows(2, 1)),
        (Some(first), Some(second))
    );
    assert_eq!(all.rows(2, 2), None);
    for other in [
        Array::f32([1, 2], vec![0.0; 2]),
        Array::i64([1, 3], vec![0; 3]),
        Array::f32([3], vec![0.0; 3]),
    ] {
        let mut all = all.clone();
        assert!(!all.append(&other), "{other:?}");
        assert_eq!(all.shape, [3, 3]);
    }
    assert!(
        !Array::f32([], vec![1.0]).append(&Array::f32([], vec![1.0])),
        "a scalar has no axis"
    );
}

#[test]
fn a_probe_with_a_number_that_does_not_fit_is_none() {
    let list = |text: &str| serde_json::from_str::<Vec<Json>>(text).unwrap();
    assert_eq!(
        Array::from_json("u8", vec![2], &list("[1, 255]"))
            .unwrap()
            .values,
        Values::U8(vec![1, 255])
    );
    for (kind, shape, text) in [
        ("u8", vec![1], "[256]"),
        ("i64", vec![1], "[1.5]"),
        ("f32", vec![2], "[1]"),
        ("bool", vec![1], "[1]"),
        ("str", vec![1], "[1]"),
    ] {
        assert_eq!(
            Array::from_json(kind, shape, &list(text)),
            None,
            "{kind} {text}"
        );
    }
    assert_eq!(Array::elements_of(&[usize::MAX, 2]), None);
}

#[test]
fn arrays_survive_the_way_through_bytes_and_through_json() {
    let all = [
        Values::F32(vec![1.5, -0.0]),
        Values::F64(vec![1e300, -2.25]),
        Values::F16(vec![f16::from_f32(0.5), f16::MAX]),
        Values::I64(vec![i64::MIN, i64::MAX]),
        Values::I32(vec![i32::MIN, 7]),
        Values::I16(vec![-3, 3]),
        Values::I8(vec![-128, 127]),
        Values::U8(vec![0, 255]),
        Values::Bool(vec![true, false]),
    ];
    for values in all {
        let kind = values.element_type();
        let bytes = values.to_le_bytes();
        assert_eq!(
            Some(bytes.len()),
            Values::element_bytes(kind).map(|bytes| 2 * bytes),
            "{kind}"
        );
        assert_eq!(Values::from_le_bytes(kind, &bytes).as_ref(), Ok(&values));
        let array = Array {
            shape: vec![2],
            values,
        };
        let list = array.to_json();
        assert_eq!(
            Array::from_json(kind, vec![2], &list),
            Some(array),
            "{list:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_whole_elements_are_refused_with_the_reason() {
    for (kind, bytes, part) in [
        ("f32", vec![0; 6], "6 bytes"),
        ("bool", vec![2], "0 or 1"),
        ("str", vec![0], "\"str\""),
    ] {
        let said = Values::from_le_bytes(kind, &bytes).unwrap_err().to_string();
        assert!(said.contains(part), "{kind}: {said}");
    }
}
