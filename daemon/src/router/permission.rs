//! Who may do what: the one place that answers it, pure.
//!
//! Doors authenticate (D-Bus by the kernel's peer credentials and polkit, the fleet by the broker); this decides by
//! principal, thing and affordance. First form: local users whom the door let in may do everything; the fleet may do
//! everything but what a person must confirm (`edge:confirm`), since nobody stands beside the box to be asked.

use super::Principal;
use super::outcome::CommandError;
use crate::things::description::ThingDescription;
use crate::understanding::{Call, Operation};

/// Checks one call.
///
/// # Errors
/// [`CommandError::Denied`] names principal and resource.
pub fn check(
    principal: &Principal,
    thing: &ThingDescription,
    call: &Call,
) -> Result<(), CommandError> {
    let (affordance, must_be_confirmed) = match &call.operation {
        Operation::Invoke { action, .. } => (
            action,
            thing
                .actions
                .get(action)
                .is_some_and(|action| action.confirm),
        ),
        Operation::Write { property, .. } => (
            property,
            thing
                .properties
                .get(property)
                .is_some_and(|property| property.confirm),
        ),
        Operation::Read { property } => (property, false),
    };
    match principal {
        Principal::Local { .. } => Ok(()),
        Principal::Fleet if !must_be_confirmed => Ok(()),
        Principal::Fleet => Err(CommandError::Denied {
            principal: principal.to_string(),
            resource: format!("{}/{affordance}", thing.id),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"{"id":"urn:lock","title":"Front door","actions":{
        "unlock":{"edge:confirm":true},"lock":{}}}"#;

    fn ask(principal: &Principal, action: &str) -> Result<(), CommandError> {
        let thing = ThingDescription::from_json(LOCK).unwrap();
        let operation = Operation::Invoke {
            action: action.into(),
            input: None,
        };
        check(
            principal,
            &thing,
            &Call {
                thing: thing.id.clone(),
                operation,
            },
        )
    }

    #[test]
    fn the_fleet_may_lock_but_not_unlock() {
        assert!(ask(&Principal::Fleet, "lock").is_ok());
        let denied = ask(&Principal::Fleet, "unlock").unwrap_err();
        assert_eq!(denied.to_string(), "fleet may not use urn:lock/unlock");
        assert!(ask(&Principal::Local { uid: 1000 }, "unlock").is_ok());
    }
}
