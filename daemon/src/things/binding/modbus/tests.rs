use proptest::prelude::*;
use serde_json::json;

use super::*;

fn bind(document: Value) -> Result<ModbusThing, BindError> {
    ModbusThing::bind(Described::from_value(document)?)
}

fn one(property: Value) -> Result<ModbusThing, BindError> {
    bind(json!({"id": "urn:x", "title": "X", "properties": {"level": property}}))
}

fn fault(property: Value) -> String {
    one(property).unwrap_err().to_string()
}

#[test]
fn a_form_becomes_the_block_that_the_wire_names() {
    let thing = one(json!({"type": "number", "observable": true, "forms": [{
        "href": "modbus+rtu://meters/17/1?quantity=2", "op": ["readproperty", "observeproperty", "writeproperty"],
        "modv:entity": "HoldingRegister", "modv:type": "xsd:float", "modv:pollingTime": 250, "modv:timeout": 300
    }]}))
    .unwrap();
    assert_eq!((thing.bus.as_str(), thing.unit), ("meters", 17));
    let level = &thing.properties["level"];
    assert_eq!(level.poll, Some(Duration::from_millis(250)));
    let read = level.read.as_ref().unwrap();
    assert_eq!(
        read.block,
        Block {
            table: Table::HoldingRegisters,
            address: 0,
            count: 2
        }
    );
    assert_eq!(read.timeout, Some(Duration::from_millis(300)));
    assert_eq!(
        read.decode(&Data::Words(vec![0x41ad, 0x999a])).unwrap(),
        json!(21.7)
    );
    let write = level.write.as_ref().unwrap();
    assert_eq!(
        write.encode(&json!(21.7), None).unwrap(),
        Data::Words(vec![0x41ad, 0x999a])
    );
    assert_eq!(write.function, WriteFunction::Multiple);
}

#[test]
fn addresses_count_from_one_unless_the_form_says_zero() {
    let address = |form: Value| {
        let thing = one(json!({"type": "integer", "readOnly": true, "forms": [form]})).unwrap();
        thing.properties["level"]
            .read
            .as_ref()
            .unwrap()
            .block
            .address
    };
    assert_eq!(
        address(json!({"href": "modbus+rtu://b/1/40", "modv:entity": "InputRegister"})),
        39
    );
    let zero = json!({"href": "modbus+rtu://b/1/40", "modv:entity": "InputRegister", "modv:zeroBasedAddressing": true});
    assert_eq!(address(zero), 40);
    // The binding's older form, with members instead of a path.
    let members = json!({"href": "modbus+rtu://b", "modv:unitID": 1, "modv:address": 1, "modv:function": "readHoldingRegisters"});
    assert_eq!(
        address(
            json!({"href": "modbus+rtu://b/x", "modv:unitID": 1, "modv:address": 7, "modv:function": 4})
        ),
        6
    );
    assert_eq!(address(members), 0);
}

#[test]
fn a_wrong_form_is_refused_with_its_path() {
    let form = |more: Value| {
        let mut form = json!({"href": "modbus+rtu://b/1/1", "modv:entity": "HoldingRegister"});
        form.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"type": "integer", "forms": [form]})
    };
    for (property, path, says) in [
        (
            form(json!({"modv:entity": "Register"})),
            "properties.level.forms[0].modv:entity",
            "Register",
        ),
        (
            form(json!({"modv:entity": "InputRegister"})),
            "properties.level.forms[0].modv:entity",
            "only be read",
        ),
        (
            form(json!({"href": "modbus+rtu://b/300/1"})),
            "properties.level.forms[0].href",
            "247",
        ),
        (
            form(json!({"href": "modbus+rtu://b/1"})),
            "properties.level.forms[0].modv:address",
            "missing",
        ),
        (
            form(json!({"href": "modbus+rtu://b/1/0"})),
            "properties.level.forms[0].href",
            "1 to 65536",
        ),
        (
            form(json!({"href": "modbus+rtu://b/1/1?quantity=2"})),
            "properties.level.forms[0].modv:type",
            "missing",
        ),
        (
            form(json!({"href": "modbus+rtu://b/1/1?quantity=0"})),
            "properties.level.forms[0].href",
            "quantity",
        ),
        (
            form(json!({"modv:type": "xsd:date"})),
            "properties.level.forms[0].modv:type",
            "date",
        ),
        (
            form(json!({"modv:type": "xsd:float", "modv:quantity": 3})),
            "properties.level.forms[0].modv:quantity",
            "width",
        ),
        (
            form(json!({"edge:scale": 0})),
            "properties.level.forms[0].edge:scale",
            "zero",
        ),
        (
            form(json!({"edge:bitOffset": 12, "edge:bitCount": 5})),
            "properties.level.forms[0].edge:bitOffset",
            "bits",
        ),
        (
            form(json!({"href": "mqtt://b/t"})),
            "properties.level.forms[0].href",
            "modbus+rtu",
        ),
        (
            json!({"type": "integer", "forms": []}),
            "properties.level.forms",
            "no form",
        ),
    ] {
        let error = fault(property);
        assert!(error.contains(path) && error.contains(says), "{error}");
    }
    let two_units = json!({"id": "urn:x", "title": "X", "properties": {
        "a": {"type": "integer", "readOnly": true, "forms": [{"href": "modbus+rtu://b/1/1", "modv:entity": "InputRegister"}]},
        "b": {"type": "integer", "readOnly": true, "forms": [{"href": "modbus+rtu://b/2/1", "modv:entity": "InputRegister"}]}
    }});
    assert!(
        bind(two_units)
            .unwrap_err()
            .to_string()
            .contains("same bus and unit")
    );
}

#[test]
fn coils_are_booleans_and_actions_write_constants_or_their_input() {
    let thing = bind(json!({"id": "urn:x", "title": "X",
        "properties": {"on": {"type": "boolean", "forms": [{"href": "modbus+rtu://b/1/6", "modv:entity": "Coil"}]}},
        "actions": {
            "reset": {"forms": [{"href": "modbus+rtu://b/1/9", "modv:entity": "HoldingRegister", "edge:value": 255}]},
            "set_speed": {"input": {"type": "object", "properties": {"speed": {"type": "integer"}}},
                "forms": [{"href": "modbus+rtu://b/1/10", "modv:function": "writeMultipleHoldingRegisters"}]}
        }}))
    .unwrap();
    let on = thing.properties["on"].write.as_ref().unwrap();
    assert_eq!(
        on.encode(&json!(true), None).unwrap(),
        Data::Bits(vec![true])
    );
    assert_eq!(on.decode(&Data::Bits(vec![false])).unwrap(), json!(false));
    assert_eq!(
        thing.actions["reset"].value,
        ActionValue::Constant(json!(255))
    );
    assert_eq!(
        thing.actions["set_speed"].value,
        ActionValue::Member("speed".into())
    );
    assert_eq!(
        thing.actions["set_speed"].write.function,
        WriteFunction::Multiple
    );
    let too_large = json!({"id": "urn:x", "title": "X", "actions": {
        "reset": {"forms": [{"href": "modbus+rtu://b/1/9", "modv:entity": "HoldingRegister", "edge:value": 70000}]}}});
    assert!(
        bind(too_large)
            .unwrap_err()
            .to_string()
            .contains("actions.reset.forms[0].edge:value")
    );
}

fn member() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "Coil",
            "HoldingRegister",
            "readCoil",
            "xsd:float",
            "xsd:string",
            "boolean",
            "array"
        ])
        .prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn any_form_is_bound_or_refused(href in prop_oneof!["modbus\\+rtu://b/[0-9]{0,6}/[0-9]{0,6}(\\?quantity=[0-9]{0,5})?", "\\PC{0,30}"],
                                    members in prop::collection::btree_map(prop::sample::select(vec![
        "op", "modv:entity", "modv:function", "modv:unitID", "modv:address", "modv:quantity", "modv:type", "edge:scale",
        "edge:offset", "edge:bitOffset", "edge:bitCount", "modv:pollingTime", "modv:timeout", "edge:value", "contentType"]),
        member(), 0..6), words in prop::collection::vec(any::<u16>(), 0..6)) {
        let mut form = json!({"href": href});
        for (name, value) in members {
            form[name] = value;
        }
        for data_type in ["boolean", "integer", "string", "array"] {
            if let Ok(thing) = one(json!({"type": data_type, "forms": [form.clone()]})) {
                let property = &thing.properties["level"];
                for point in property.read.iter().chain(&property.write) {
                    if let Ok(value) = point.decode(&Data::Words(words.clone())) {
                        let _ = point.encode(&value, Some(&Data::Words(words.clone())));
                    }
                }
            }
        }
    }
}
