//! `ports`: the serial ports of this machine, for whoever writes a configuration. It opens none of them and needs no daemon.

use serde_json::{Value as Json, json};

use autoglm_drivers::serial::holder::{Holder, holders};
use autoglm_drivers::serial::scan;
use autoglm_drivers::serial::tty::Tty;

use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::table::Table;

/// Lists the ports that have hardware behind them, with the address that a `[[device]]` should name.
///
/// # Errors
/// [`Failure`] when the system cannot be asked.
pub fn run(output: &mut Output) -> Result<Exit, Failure> {
    let found = scan::ttys().map_err(|error| {
        Failure::new(Exit::Internal, "the serial ports cannot be listed").because(&error)
    })?;
    let ports: Vec<(Tty, Vec<Holder>)> = found
        .ttys
        .into_iter()
        .filter(|tty| tty.is_fitted)
        .map(|tty| {
            let users = holders(&tty.node);
            (tty, users)
        })
        .collect();
    if output.form == Form::Json {
        let ports: Vec<Json> = ports.iter().map(|(tty, users)| form(tty, users)).collect();
        output.json("ports", &json!(ports))?;
        return Ok(Exit::Success);
    }
    if ports.is_empty() {
        output.note("no serial ports: no adapter is plugged in, and the board has none");
        return Ok(Exit::Success);
    }
    output.text(&text(&ports, output.width))?;
    if !found.has_udev {
        output.note("no udev here: there are no stable names under /dev/serial");
    }
    Ok(Exit::Success)
}

fn text(ports: &[(Tty, Vec<Holder>)], width: Option<u16>) -> String {
    let mut table = Table::new(
        &["PORT", "ADDRESS", "PRODUCT", "USB", "DRIVER", "USED BY"],
        width,
    );
    for (tty, users) in ports {
        let usb = tty.usb.as_ref();
        let users: Vec<String> = users.iter().map(Holder::to_string).collect();
        table.row([
            tty.node.display().to_string(),
            tty.address(),
            usb.and_then(|usb| usb.product.clone()).unwrap_or_default(),
            usb.map(|usb| usb.id.to_string()).unwrap_or_default(),
            tty.driver.clone().unwrap_or_default(),
            users.join(", "),
        ]);
    }
    table.render()
}

fn form(tty: &Tty, users: &[Holder]) -> Json {
    let usb = tty.usb.as_ref().map(|usb| {
        json!({
            "id": usb.id.to_string(),
            "serial": usb.serial,
            "product": usb.product,
            "interface": usb.interface,
            "port": usb.port,
        })
    });
    let users: Vec<Json> = users
        .iter()
        .map(|user| json!({"process": user.process, "name": user.name}))
        .collect();
    json!({
        "node": tty.node,
        "address": tty.address(),
        "names": tty.names,
        "driver": tty.driver,
        "usb": usb,
        "ready": tty.ready_us.is_some(),
        "used_by": users,
    })
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use autoglm_drivers::serial::UsbId;
    use autoglm_drivers::serial::tty::UsbTty;

    use super::*;

    #[test]
    fn a_port_is_shown_with_the_address_to_be_written_down_and_its_user() {
        let tty = Tty {
            node: "/dev/ttyUSB0".into(),
            names: vec!["/dev/serial/by-id/usb-FTDI_A1".into()],
            driver: Some("ftdi_sio".to_owned()),
            usb: Some(UsbTty {
                id: UsbId {
                    vendor: 0x0403,
                    product: 0x6001,
                },
                serial: Some("A1".to_owned()),
                product: Some("FTDI FT232R".to_owned()),
                interface: Some(0),
                port: Some(0),
            }),
            is_fitted: true,
            ready_us: Some(1),
        };
        let users = vec![Holder {
            process: 1,
            name: "ModemManager".to_owned(),
        }];
        let shown = text(&[(tty.clone(), users.clone())], None);
        assert_eq!(
            strip_str(&shown).to_string().lines().nth(1),
            Some(
                "/dev/ttyUSB0  serial://usb/serial/A1  FTDI FT232R  0403:6001  ftdi_sio  ModemManager (process 1)"
            )
        );
        let form = form(&tty, &users);
        assert_eq!(
            (
                &form["address"],
                &form["usb"]["id"],
                &form["used_by"][0]["name"]
            ),
            (
                &json!("serial://usb/serial/A1"),
                &json!("0403:6001"),
                &json!("ModemManager")
            )
        );
    }
}
