//! The D-Bus interfaces as the running daemon shows them are those that are shipped in `systemd/dbus-interfaces/`.
//!
//! After a wanted change: `AUTOGLM_WRITE_INTERFACES=1 cargo test -p autoglm-tests --test introspection`, and look at the difference.

use std::path::Path;

use autoglm_edge::control::dbus::names::{ROOT, path};
use autoglm_tests::edge_box::{EdgeBox, LAMP};

/// The part of an introspection document that describes one interface.
fn interface(document: &str, name: &str) -> String {
    let start = document
        .find(&format!("<interface name=\"{name}\">"))
        .unwrap_or_else(|| panic!("{name} is not in\n{document}"));
    let length = document[start..]
        .find("</interface>")
        .expect("an interface ends")
        + "</interface>".len();
    format!("<node>\n  {}\n</node>\n", &document[start..start + length])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interfaces_are_those_that_are_shipped() {
    let edge_box = EdgeBox::running().await.unwrap();
    let connection = edge_box
        .manager()
        .await
        .unwrap()
        .inner()
        .connection()
        .clone();
    let model = "all-minilm-l6-v2-int8";
    for (object, name) in [
        (ROOT.to_owned(), "Manager"),
        (ROOT.to_owned(), "Models"),
        (ROOT.to_owned(), "Bluetooth"),
        (path("things", LAMP).to_string(), "Thing"),
        (path("links", "lamp-serial").to_string(), "Link"),
        (path("models", model).to_string(), "Model"),
    ] {
        let name = format!("org.openautoglm.Edge1.{name}");
        let builder = zbus::fdo::IntrospectableProxy::builder(&connection)
            .destination("org.openautoglm.Edge1");
        let proxy = builder.path(object).build().await.unwrap();
        let seen = interface(&proxy.introspect().await.unwrap(), &name);
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../systemd/dbus-interfaces")
            .join(format!("{name}.xml"));
        if std::env::var_os("AUTOGLM_WRITE_INTERFACES").is_some() {
            std::fs::write(&file, &seen).unwrap();
        }
        let shipped = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            shipped,
            seen,
            "{} (see the head of this test)",
            file.display()
        );
    }
}
