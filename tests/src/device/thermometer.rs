//! A thermometer with a fan: the air warms by itself, and the fan cools it.

use autoglm_protocol::{Fault, FaultCode, Value};

use super::model::{Model, member, unknown};

/// Its Thing Description.
pub const DESCRIPTION: &str = include_str!("../../things/thermometer.json");

/// Temperature that a room without a fan creeps to, in degrees Celsius.
const ROOM_CELSIUS: f64 = 26.0;
/// Share of the difference that one second closes.
const RATE_PER_SECOND: f64 = 0.02;

/// The thermometer.
#[derive(Debug)]
pub struct Thermometer {
    celsius: f64,
    speed: &'static str,
}

impl Default for Thermometer {
    fn default() -> Self {
        Self {
            celsius: 21.5,
            speed: "off",
        }
    }
}

impl Model for Thermometer {
    fn properties(&self) -> Vec<(&'static str, Value)> {
        // One decimal, as the sensor has it.
        let celsius = (self.celsius * 10.0).round() / 10.0;
        let humidity = ((65.0 - self.celsius) * 10.0).round() / 10.0;
        vec![
            ("temperature", Value::Float(celsius)),
            ("humidity", Value::Float(humidity)),
            ("fan_speed", Value::Text(self.speed.to_owned())),
        ]
    }

    fn invoke(&mut self, action: &str, input: &Value) -> Result<Value, Fault> {
        if action != "set_fan_speed" {
            return Err(unknown(action));
        }
        let Value::Text(speed) = member(input, "speed")? else {
            return Err(Fault::new(FaultCode::WrongType, "speed must be a text"));
        };
        self.speed = ["off", "low", "medium", "high"]
            .into_iter()
            .find(|known| known == speed)
            .ok_or_else(|| Fault::new(FaultCode::OutOfRange, format!("{speed} is no speed")))?;
        Ok(Value::Null)
    }

    fn pass(&mut self, seconds: f64) {
        let target = ROOM_CELSIUS
            - match self.speed {
                "low" => 3.0,
                "medium" => 5.0,
                "high" => 7.0,
                _ => 0.0,
            };
        self.celsius += (target - self.celsius) * (RATE_PER_SECOND * seconds).min(1.0);
    }
}
