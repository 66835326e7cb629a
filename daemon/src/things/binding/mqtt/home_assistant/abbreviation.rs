//! What discovery messages leave unsaid, written out: abbreviated members and the base topic `~`.

use serde_json::{Map, Value};

/// Abbreviations of the members that are read here, as the discovery page lists them.
const ABBREVIATIONS: &[(&str, &str)] = &[
    ("avty", "availability"),
    ("avty_mode", "availability_mode"),
    ("avty_t", "availability_topic"),
    ("avty_tpl", "availability_template"),
    ("bri_cmd_t", "brightness_command_topic"),
    ("bri_cmd_tpl", "brightness_command_template"),
    ("bri_scl", "brightness_scale"),
    ("bri_stat_t", "brightness_state_topic"),
    ("bri_val_tpl", "brightness_value_template"),
    ("cmd_t", "command_topic"),
    ("cmd_tpl", "command_template"),
    ("cmps", "components"),
    ("dev", "device"),
    ("dev_cla", "device_class"),
    ("evt_typ", "event_types"),
    ("o", "origin"),
    ("ops", "options"),
    ("p", "platform"),
    ("pct_cmd_t", "percentage_command_topic"),
    ("pct_cmd_tpl", "percentage_command_template"),
    ("pct_stat_t", "percentage_state_topic"),
    ("pct_val_tpl", "percentage_value_template"),
    ("pl_avail", "payload_available"),
    ("pl_cls", "payload_close"),
    ("pl_lock", "payload_lock"),
    ("pl_not_avail", "payload_not_available"),
    ("pl_off", "payload_off"),
    ("pl_on", "payload_on"),
    ("pl_open", "payload_open"),
    ("pl_prs", "payload_press"),
    ("pl_stop", "payload_stop"),
    ("pl_unlk", "payload_unlock"),
    ("pos_clsd", "position_closed"),
    ("pos_open", "position_open"),
    ("pos_t", "position_topic"),
    ("pos_tpl", "position_template"),
    ("ret", "retain"),
    ("set_pos_t", "set_position_topic"),
    ("set_pos_tpl", "set_position_template"),
    ("spd_rng_max", "speed_range_max"),
    ("spd_rng_min", "speed_range_min"),
    ("stat_cla", "state_class"),
    ("stat_clsd", "state_closed"),
    ("stat_closing", "state_closing"),
    ("stat_locked", "state_locked"),
    ("stat_off", "state_off"),
    ("stat_on", "state_on"),
    ("stat_open", "state_open"),
    ("stat_opening", "state_opening"),
    ("stat_t", "state_topic"),
    ("stat_unlocked", "state_unlocked"),
    ("stat_val_tpl", "state_value_template"),
    ("sup_clrm", "supported_color_modes"),
    ("t", "topic"),
    ("uniq_id", "unique_id"),
    ("unit_of_meas", "unit_of_measurement"),
    ("val_tpl", "value_template"),
];
const DEVICE_ABBREVIATIONS: &[(&str, &str)] = &[
    ("cns", "connections"),
    ("ids", "identifiers"),
    ("mdl", "model"),
    ("mf", "manufacturer"),
    ("sa", "suggested_area"),
];

/// Writes out abbreviations and the base topic `~`.
pub(super) fn written_out(config: Map<String, Value>) -> Map<String, Value> {
    let base = config.get("~").and_then(Value::as_str).map(str::to_owned);
    let mut out = names_written_out(config, ABBREVIATIONS);
    if let Some(Value::Object(device)) = out.remove("device") {
        out.insert(
            "device".into(),
            Value::Object(names_written_out(device, DEVICE_ABBREVIATIONS)),
        );
    }
    if let Some(Value::Array(list)) = out.remove("availability") {
        let list = list.into_iter().map(|entry| match entry {
            Value::Object(entry) => Value::Object(with_base(
                names_written_out(entry, ABBREVIATIONS),
                base.as_deref(),
            )),
            other => other,
        });
        out.insert("availability".into(), Value::Array(list.collect()));
    }
    with_base(out, base.as_deref())
}

fn names_written_out(
    config: Map<String, Value>,
    abbreviations: &[(&str, &str)],
) -> Map<String, Value> {
    config
        .into_iter()
        .map(|(name, value)| {
            let full = abbreviations
                .iter()
                .find(|(short, _)| *short == name)
                .map(|(_, full)| (*full).to_owned());
            (full.unwrap_or(name), value)
        })
        .collect()
}

/// `~` at the beginning or the end of a topic stands for the base topic.
fn with_base(mut config: Map<String, Value>, base: Option<&str>) -> Map<String, Value> {
    let Some(base) = base else { return config };
    for (name, value) in &mut config {
        let is_topic = name == "topic" || name.ends_with("_topic");
        if let Value::String(topic) = value
            && is_topic
        {
            if let Some(rest) = topic.strip_prefix('~') {
                *topic = format!("{base}{rest}");
            } else if let Some(rest) = topic.strip_suffix('~') {
                *topic = format!("{rest}{base}");
            }
        }
    }
    config
}
