//! What a simulated device is: properties, actions and a state, without any I/O.

use autoglm_protocol::{Fault, FaultCode, Value};

/// A kind of device.
pub trait Model: Send {
    /// Its properties by name, as they are now.
    fn properties(&self) -> Vec<(&'static str, Value)>;

    /// Carries out an action.
    ///
    /// # Errors
    /// A fault as real firmware would give it.
    fn invoke(&mut self, action: &str, input: &Value) -> Result<Value, Fault>;

    /// Lets `seconds` pass.
    fn pass(&mut self, _seconds: f64) {}
}

/// The fault for an action or property that is not there.
#[must_use]
pub fn unknown(name: &str) -> Fault {
    Fault::new(
        FaultCode::UnknownAffordance,
        format!("there is no {name} here"),
    )
}

/// A member of an action's input. Firmware checks again what the host has checked.
///
/// # Errors
/// `WrongType` naming the member.
pub fn member<'a>(input: &'a Value, name: &str) -> Result<&'a Value, Fault> {
    let missing = || Fault::new(FaultCode::WrongType, format!("{name} is missing"));
    match input {
        Value::Map(members) => members
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
            .ok_or_else(missing),
        _ => Err(missing()),
    }
}

/// A property's value.
///
/// # Errors
/// `UnknownAffordance`.
pub fn read(model: &dyn Model, property: &str) -> Result<Value, Fault> {
    model
        .properties()
        .into_iter()
        .find(|(name, _)| *name == property)
        .map(|(_, value)| value)
        .ok_or_else(|| unknown(property))
}
