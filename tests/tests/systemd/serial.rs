//! What udev's rules make of serial ports, with the distribution's own rules around ours.

use crate::adapter::{Adapter, Seen, on_board, plug};
use crate::installed::can_install;

const VENDOR_SPECIFIC: (u8, u8, u8) = (0xff, 0xff, 0xff);
const CDC_DATA: (u8, u8, u8) = (0x0a, 0, 0);

const FTDI: Adapter = Adapter {
    node: "ttyUSB0",
    driver: "ftdi_sio",
    id: (0x0403, 0x6001),
    serial: Some("A50285BI"),
    interfaces: &[VENDOR_SPECIFIC],
};
const CH340_WITHOUT_SERIAL_NUMBER: Adapter = Adapter {
    driver: "ch341-uart",
    id: (0x1a86, 0x7523),
    serial: None,
    ..FTDI
};
const MICROCONTROLLER: Adapter = Adapter {
    node: "ttyACM0",
    driver: "cdc_acm",
    id: (0x2e8a, 0x0005),
    serial: Some("E6614104"),
    interfaces: &[(0x02, 0x02, 0), CDC_DATA],
};
const LTE_MODEM: Adapter = Adapter {
    node: "ttyUSB0",
    driver: "option",
    id: (0x2c7c, 0x0125),
    serial: None,
    interfaces: &[VENDOR_SPECIFIC, VENDOR_SPECIFIC, VENDOR_SPECIFIC],
};
const ACM_MODEM_WITH_NETWORK: Adapter = Adapter {
    id: (0x1546, 0x1143),
    interfaces: &[(0x02, 0x02, 1), CDC_DATA, (0x02, 0x0d, 0), (0x0a, 0, 1)],
    ..MICROCONTROLLER
};

fn seen(adapter: &Adapter) -> Seen {
    let seen = plug(adapter);
    assert_eq!(seen.access, "dialout 660", "{adapter:?}");
    assert_eq!(
        seen.properties.get("CURRENT_TAGS").map(String::as_str),
        Some(":systemd:"),
        "{adapter:?}"
    );
    seen
}

#[test]
fn an_adapter_is_found_by_its_serial_number_and_by_its_socket() {
    if !can_install() {
        return;
    }
    let socket = "socket-pci-0000_00_14_0-usb-0_1_1_0";
    assert_eq!(
        seen(&FTDI).names(),
        [
            "serial-A50285BI-if00-port0".to_owned(),
            format!("{socket}-port0")
        ]
    );
    assert_eq!(
        seen(&MICROCONTROLLER).names(),
        ["serial-E6614104-if00".to_owned(), socket.to_owned()]
    );
    assert_eq!(
        seen(&CH340_WITHOUT_SERIAL_NUMBER).names(),
        [format!("{socket}-port0")]
    );
}

#[test]
fn modem_manager_leaves_adapters_and_microcontrollers_alone_and_keeps_its_modems() {
    if !can_install() {
        return;
    }
    for (adapter, is_hidden) in [
        (FTDI, true),
        (CH340_WITHOUT_SERIAL_NUMBER, true),
        (MICROCONTROLLER, true),
        (LTE_MODEM, false),
        (ACM_MODEM_WITH_NETWORK, false),
    ] {
        let seen = seen(&adapter);
        assert_eq!(
            seen.is_hidden_from_modem_manager(),
            is_hidden,
            "{adapter:?}: {:?}",
            seen.properties
        );
    }
}

#[test]
fn a_port_on_the_board_is_left_as_it_is() {
    if !can_install() {
        return;
    }
    let seen = on_board("ttyS0");
    assert!(
        seen.names().is_empty() && !seen.is_hidden_from_modem_manager(),
        "{:?}",
        seen.properties
    );
}
