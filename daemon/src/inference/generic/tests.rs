use super::*;

fn graph() -> TensorsGraph {
    toml::from_str(
        r#"
        file = "g.onnx"
        batch = "n"
        [dimensions]
        n = { max = 4 }
        t = { min = 2, max = 10 }
        [inputs]
        x = { type = "f32", shape = ["n", "t", 3] }
        mask = { type = "bool", shape = ["n", "t"] }
        [outputs]
        y = { type = "f32", shape = ["n", "t"] }
        "#,
    )
    .unwrap()
}

fn inputs(n: usize, t: usize) -> Arrays {
    Arrays::from([
        ("x".into(), Array::f32([n, t, 3], vec![0.5; n * t * 3])),
        (
            "mask".into(),
            Array {
                shape: vec![n, t],
                values: Values::Bool(vec![true; n * t]),
            },
        ),
    ])
}

#[test]
fn a_request_that_does_not_fit_is_told_which_tensor_and_why() {
    let graph = graph();
    assert_eq!(check(&graph, &inputs(3, 5)).unwrap(), Some(3));
    let refused = |name: &str, array: Option<Array>| {
        let mut inputs = inputs(2, 4);
        match array {
            Some(array) => inputs.insert(name.into(), array),
            None => inputs.remove(name),
        };
        check(&graph, &inputs).unwrap_err().to_string()
    };
    for (name, array, part) in [
        ("x", None, "absent"),
        (
            "z",
            Some(Array::f32([1], vec![0.0])),
            "the inputs are mask, x",
        ),
        ("x", Some(Array::i64([2, 4, 3], vec![0; 24])), "i64"),
        ("x", Some(Array::f32([2, 4], vec![0.0; 8])), "[2, 4]"),
        ("x", Some(Array::f32([2, 4, 2], vec![0.0; 16])), "[2, 4, 2]"),
        (
            "x",
            Some(Array::f32([2, 4, 3], vec![0.0; 23])),
            "23 elements",
        ),
        (
            "x",
            Some(Array::f32([2, 11, 3], vec![0.0; 66])),
            "t from 2 to 10",
        ),
        (
            "x",
            Some(Array::f32([2, 5, 3], vec![0.0; 30])),
            "t = 4, as in another input",
        ),
        ("x", Some(Array::f32([0, 4, 3], vec![])), "n from 1 to 4"),
        (
            "x",
            Some(Array {
                shape: vec![usize::MAX, 4, 3],
                values: Values::F32(vec![]),
            }),
            "elements",
        ),
    ] {
        let said = refused(name, array);
        assert!(
            said.contains(&format!("{name:?}")) && said.contains(part),
            "{part}: {said}"
        );
    }
}

#[test]
fn only_requests_of_the_same_dimensions_are_joined_and_never_more_rows_than_allowed() {
    let graph = graph();
    let mut joined = Joined::of(inputs(2, 4), 2);
    assert!(!joined.try_add(&graph, &inputs(1, 5), 1), "another t");
    assert!(joined.try_add(&graph, &inputs(1, 4), 1));
    assert!(!joined.try_add(&graph, &inputs(2, 4), 2), "five rows");
    assert!(joined.try_add(&graph, &inputs(1, 4), 1));
    assert_eq!(joined.parts().collect::<Vec<_>>(), [(0, 2), (2, 1), (3, 1)]);
    assert_eq!(joined.inputs["x"].shape, [4, 4, 3]);
    assert_eq!(joined.inputs["mask"].values.len(), 16);
}

#[test]
fn a_nan_and_an_absent_output_never_pass_the_probe() {
    let expected = Arrays::from([("y".into(), Array::f32([1], vec![100.0]))]);
    let seen = |value: f32| Arrays::from([("y".into(), Array::f32([1], vec![value]))]);
    assert!(
        compare(&expected, &seen(100.5), 0.01).is_ok(),
        "a share of the largest element"
    );
    for wrong in [102.0, f32::NAN, f32::INFINITY] {
        assert!(compare(&expected, &seen(wrong), 0.01).is_err(), "{wrong}");
    }
    assert!(compare(&expected, &Arrays::new(), 0.01).is_err());
    assert!(
        compare(&Arrays::new(), &Arrays::new(), 0.01).is_err(),
        "a probe that says nothing"
    );
}
