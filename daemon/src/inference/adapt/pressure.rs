//! Pressure stall information, as Linux tells it (docs.kernel.org/accounting/psi.html): the share of time in which at least one task could not go on.
//!
//! `/proc/pressure/cpu` and `memory` are of the whole machine, `cpu.pressure` and `memory.pressure` of our own control group, where a CPU quota that is
//! used up counts as waiting. The kernel computes the averages every two seconds. Pure.

/// `some` over the last ten seconds, in percent.
///
/// ```text
/// some avg10=26.88 avg60=40.25 avg300=21.62 total=28501285376
/// full avg10=0.00 avg60=0.00 avg300=0.00 total=0
/// ```
///
/// Kernels before 5.13 have no second line for the processors. `None` for anything else.
pub(super) fn parse(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line
        .split_ascii_whitespace()
        .find_map(|field| field.strip_prefix("avg10="))?;
    let percent: f64 = value.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_kernels_write_is_read() {
        // Linux 6.18, /proc/pressure/cpu beside a compiler; 5.4 (its documentation has one line for the processors); 6.18, a control group's memory.pressure.
        for (text, percent) in [
            (
                "some avg10=26.88 avg60=40.25 avg300=21.62 total=28501285376\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
                26.88,
            ),
            (
                "some avg10=1.43 avg60=0.52 avg300=0.11 total=3461278\n",
                1.43,
            ),
            (
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=86132853\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=14049951\n",
                0.0,
            ),
        ] {
            assert_eq!(parse(text), Some(percent), "{text}");
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for text in [
            "",
            "some",
            "some avg60=1.00",
            "some avg10=",
            "some avg10=nan avg60=0.00",
            "some avg10=-1.00",
            "some avg10=100.01",
            "full avg10=3.00 avg60=0.00 avg300=0.00 total=0\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,200}", value in any::<f64>()) {
            let _ = parse(&text);
            let read = parse(&format!("some avg10={value}"));
            prop_assert!(read.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
        }
    }
}
