//! A dimmable lamp.

use autoglm_protocol::{Fault, FaultCode, Value};

use super::model::{Model, member, unknown};

/// Its Thing Description.
pub const DESCRIPTION: &str = include_str!("../../things/desk-lamp.json");

/// The lamp: dark and off at power-up, and it comes on at full brightness unless it was dimmed.
#[derive(Debug, Default)]
pub struct Lamp {
    brightness: i64,
    before_off: Option<i64>,
}

impl Lamp {
    fn set(&mut self, level: i64) {
        if level == 0 && self.brightness > 0 {
            self.before_off = Some(self.brightness);
        }
        self.brightness = level;
    }

    fn turn_on(&mut self) {
        if self.brightness == 0 {
            self.brightness = self.before_off.unwrap_or(100);
        }
    }
}

impl Model for Lamp {
    fn properties(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("on", Value::Bool(self.brightness > 0)),
            ("brightness", Value::Int(self.brightness)),
        ]
    }

    fn invoke(&mut self, action: &str, input: &Value) -> Result<Value, Fault> {
        match action {
            "turn_on" => self.turn_on(),
            "turn_off" => self.set(0),
            "toggle" if self.brightness > 0 => self.set(0),
            "toggle" => self.turn_on(),
            "set_brightness" => match member(input, "level")? {
                Value::Int(level @ 0..=100) => self.set(*level),
                Value::Int(level) => {
                    return Err(Fault::new(
                        FaultCode::OutOfRange,
                        format!("level {level} is not within 0 to 100"),
                    ));
                }
                _ => {
                    return Err(Fault::new(
                        FaultCode::WrongType,
                        "level must be a whole number",
                    ));
                }
            },
            other => return Err(unknown(other)),
        }
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lamp_comes_back_as_bright_as_it_was() {
        let mut lamp = Lamp::default();
        let level = Value::Map(vec![("level".into(), Value::Int(40))]);
        lamp.invoke("set_brightness", &level).unwrap();
        lamp.invoke("turn_off", &Value::Null).unwrap();
        assert_eq!(lamp.properties()[0].1, Value::Bool(false));
        lamp.invoke("turn_on", &Value::Null).unwrap();
        assert_eq!(lamp.properties()[1].1, Value::Int(40));
    }

    #[test]
    fn the_firmware_refuses_what_the_schema_forbids() {
        let level = Value::Map(vec![("level".into(), Value::Int(101))]);
        assert_eq!(
            Lamp::default()
                .invoke("set_brightness", &level)
                .unwrap_err()
                .code,
            FaultCode::OutOfRange
        );
        assert_eq!(
            Lamp::default()
                .invoke("explode", &Value::Null)
                .unwrap_err()
                .code,
            FaultCode::UnknownAffordance
        );
    }
}
