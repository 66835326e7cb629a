use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn times_have_units_and_are_above_zero() {
    assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
    assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
    for bad in ["0", "-1", "soon", "inf", "nan", "-2m", ""] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_session_bus_has_two_spellings_and_the_default_is_the_system_bus() {
    let bus = |args: &[&str]| Cli::try_parse_from(args).unwrap().global.chosen_bus();
    assert_eq!(
        bus(&["autoglmctl", "status", "--session-bus"]),
        Bus::Session
    );
    assert_eq!(
        bus(&["autoglmctl", "--bus", "session", "status"]),
        Bus::Session
    );
    assert_eq!(
        bus(&["autoglmctl", "--bus", "system", "--session-bus", "status"]),
        Bus::Session
    );
}

#[test]
fn negative_numbers_are_values_and_not_options() {
    let cli = Cli::try_parse_from(["autoglmctl", "write", "Heater", "offset", "-3.5"]).unwrap();
    let Command::Write { value, .. } = cli.command else {
        panic!("{cli:?}")
    };
    assert_eq!(value, ["-3.5"]);
}

#[test]
fn help_lists_every_exit_code() {
    let help = Cli::command().render_long_help().to_string();
    for exit in Exit::ALL {
        assert!(
            help.contains(&format!("{:>3}  {}", exit as u8, exit.meaning())),
            "{exit:?}\n{help}"
        );
    }
}
