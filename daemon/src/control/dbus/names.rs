//! Names on the bus, defined once.

use zbus::OwnedObjectPath;

/// The well-known name.
pub const SERVICE: &str = "org.openautoglm.Edge1";
/// The root of our tree; ObjectManager and Manager live there.
pub const ROOT: &str = "/org/openautoglm/Edge1";

/// The path of an object of `collection` (`things`, `links`, `models`) with the identifier `id`.
///
/// Every byte but ASCII letters and digits becomes `_xx` (base 16), as systemd escapes unit names in paths, so that different
/// identifiers never meet in one path.
#[must_use]
pub fn path(collection: &str, id: &str) -> OwnedObjectPath {
    let mut path = format!("{ROOT}/{collection}/");
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    if id.is_empty() {
        path.push('_');
    }
    OwnedObjectPath::try_from(path).expect("letters, digits and underscores make a valid path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_ids_have_different_valid_paths() {
        assert_eq!(
            path("things", "urn:lamp-1").as_str(),
            "/org/openautoglm/Edge1/things/urn_3alamp_2d1"
        );
        assert_ne!(path("links", "a_2d"), path("links", "a-"));
        for id in ["", "käse", "a b", "//"] {
            assert!(path("things", id).as_str().starts_with(ROOT));
        }
    }
}
