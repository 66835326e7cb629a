//! Puts an affordance down: its schema, and the forms that say where it is reported and set.

use serde_json::{Value, json};

use super::{State, Writer, number, pairs, percent, scaled, text};
use crate::things::binding::mqtt::td::extend;

impl Writer<'_> {
    /// A property that is reported where `state` says and, with `command`, set.
    pub(super) fn property(
        &mut self,
        key: &str,
        schema: Value,
        reported: Value,
        sent: Value,
        state: &State,
        command: Option<(&str, &str)>,
    ) {
        let mut forms = Vec::new();
        let state_topic = text(self.entity, state.topic);
        if let Some(topic) = &state_topic {
            let mut form = json!({"href": self.thing.href(topic), "op": ["observeproperty", "readproperty"], "contentType": "text/plain"});
            extend(&mut form, reported);
            if let Some(template) = self.entity.config.get(state.template) {
                form["edge:template"] = template.clone();
            }
            forms.push(form);
        }
        let command =
            command.and_then(|(topic, template)| Some((text(self.entity, topic)?, template)));
        if let Some((topic, template)) = &command {
            let mut form = json!({"href": self.thing.href(topic), "op": "writeproperty", "contentType": "text/plain", "mqv:controlPacket": "publish"});
            extend(&mut form, sent);
            if let Some(template) = self.entity.config.get(*template) {
                form["edge:template"] = template.clone();
            }
            self.retain(&mut form);
            forms.push(form);
        }
        if forms.is_empty() {
            return;
        }
        let mut property = json!({"observable": state_topic.is_some(), "readOnly": command.is_none(), "writeOnly": state_topic.is_none(), "forms": forms});
        extend(&mut property, schema);
        self.thing.add("properties", key, property);
    }

    pub(super) fn retain(&self, form: &mut Value) {
        if self.entity.config.get("retain") == Some(&json!(true)) {
            form["mqv:retain"] = json!(true);
        }
    }

    pub(super) fn sensor(&mut self, key: &str, title: &str) {
        let config = &self.entity.config;
        let unit = text(self.entity, "unit_of_measurement");
        let mut schema = json!({"title": title});
        match (config.get("options"), &unit) {
            (Some(options @ Value::Array(_)), _) => {
                schema["type"] = json!("string");
                schema["enum"] = options.clone();
            }
            (_, Some(unit)) => {
                schema["type"] = json!("number");
                schema["unit"] = json!(unit);
            }
            _ if config.contains_key("state_class") => schema["type"] = json!("number"),
            _ => schema["type"] = json!("string"),
        }
        self.property(key, schema, json!({}), json!({}), &State::PLAIN, None);
    }

    pub(super) fn action(&mut self, key: &str, title: &str, payload: &str) {
        let Some(topic) = text(self.entity, "command_topic") else {
            return;
        };
        let mut form = json!({"href": self.thing.href(&topic), "op": "invokeaction", "contentType": "text/plain", "edge:value": payload});
        if let Some(template) = self.entity.config.get("command_template") {
            form["edge:template"] = template.clone();
        }
        self.retain(&mut form);
        self.thing
            .add("actions", key, json!({"title": title, "forms": [form]}));
    }

    pub(super) fn light(&mut self) {
        let scale = 100.0 / number(self.entity, "brightness_scale", 255.0).max(1.0);
        let command = text(self.entity, "command_topic").unwrap_or_default();
        if text(self.entity, "schema").as_deref() == Some("json") {
            let modes = self
                .entity
                .config
                .get("supported_color_modes")
                .and_then(Value::as_array);
            let is_dimmed = self.entity.config.get("brightness") == Some(&json!(true))
                || modes.is_some_and(|modes| modes.iter().any(|mode| mode != "onoff"));
            let state =
                json!({"edge:pointer": "/state", "edge:values": [[true, "ON"], [false, "OFF"]]});
            self.json_property(
                "on",
                json!({"title": "On", "type": "boolean"}),
                state.clone(),
                state,
                &command,
            );
            if is_dimmed {
                let mut sent = json!({"edge:pointer": "/brightness", "edge:with": {"state": "ON"}});
                extend(&mut sent, scaled(scale, 0.0));
                let mut reported = json!({"edge:pointer": "/brightness"});
                extend(&mut reported, scaled(scale, 0.0));
                self.json_property(
                    "brightness",
                    percent("Brightness"),
                    reported,
                    sent,
                    &command,
                );
            }
            return;
        }
        let (on, off) = (
            text(self.entity, "payload_on").unwrap_or_else(|| "ON".to_owned()),
            text(self.entity, "payload_off").unwrap_or_else(|| "OFF".to_owned()),
        );
        let truth = pairs(&[(json!(true), on), (json!(false), off)]);
        let state = State {
            template: "state_value_template",
            ..State::PLAIN
        };
        self.property(
            "on",
            json!({"title": "On", "type": "boolean"}),
            truth.clone(),
            truth,
            &state,
            Some(("command_topic", "command_template")),
        );
        if text(self.entity, "brightness_command_topic").is_some() {
            let state = State {
                topic: "brightness_state_topic",
                template: "brightness_value_template",
            };
            let terms = scaled(scale, 0.0);
            self.property(
                "brightness",
                percent("Brightness"),
                terms.clone(),
                terms,
                &state,
                Some(("brightness_command_topic", "brightness_command_template")),
            );
        }
    }

    /// A property of a light of the json schema: everything in one object on two topics.
    pub(super) fn json_property(
        &mut self,
        key: &str,
        schema: Value,
        reported: Value,
        sent: Value,
        command: &str,
    ) {
        let mut forms = Vec::new();
        let state_topic = text(self.entity, "state_topic");
        if let Some(topic) = &state_topic {
            let mut form =
                json!({"href": self.thing.href(topic), "op": ["observeproperty", "readproperty"]});
            extend(&mut form, reported);
            forms.push(form);
        }
        let mut form = json!({"href": self.thing.href(command), "op": "writeproperty", "mqv:controlPacket": "publish"});
        extend(&mut form, sent);
        self.retain(&mut form);
        forms.push(form);
        let mut property = json!({"observable": state_topic.is_some(), "writeOnly": state_topic.is_none(), "forms": forms});
        extend(&mut property, schema);
        self.thing.add("properties", key, property);
    }

    pub(super) fn cover(&mut self) {
        let said = |member: &str, default: &str| {
            text(self.entity, member).unwrap_or_else(|| default.to_owned())
        };
        if text(self.entity, "command_topic").is_some() {
            // While it moves it is open: it is neither closed yet nor still.
            let reported = [
                (json!(true), said("state_open", "open")),
                (json!(false), said("state_closed", "closed")),
                (json!(true), said("state_opening", "opening")),
                (json!(true), said("state_closing", "closing")),
            ];
            let sent = [
                (json!(true), said("payload_open", "OPEN")),
                (json!(false), said("payload_close", "CLOSE")),
            ];
            let stop = said("payload_stop", "STOP");
            let schema = json!({"title": "Open", "type": "boolean"});
            self.property(
                "open",
                schema,
                pairs(&reported),
                pairs(&sent),
                &State::PLAIN,
                Some(("command_topic", "command_template")),
            );
            self.action("stop", "Stop", &stop);
        }
        if text(self.entity, "set_position_topic").is_some()
            || text(self.entity, "position_topic").is_some()
        {
            let (open, closed) = (
                number(self.entity, "position_open", 100.0),
                number(self.entity, "position_closed", 0.0),
            );
            let scale = if open == closed {
                1.0
            } else {
                100.0 / (open - closed)
            };
            let terms = scaled(scale, -closed * scale);
            let state = State {
                topic: "position_topic",
                template: "position_template",
            };
            self.property(
                "position",
                percent("Position"),
                terms.clone(),
                terms,
                &state,
                Some(("set_position_topic", "set_position_template")),
            );
        }
    }
}
