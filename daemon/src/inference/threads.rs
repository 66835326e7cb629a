//! How many threads a model gets: what the machine lends this process, and what the configuration asks of that.
//!
//! Lent is the least of the processors in the affinity mask and the whole processors in the CPU quota of each control group from ours upwards
//! (`cpu.max`, or `cpu.cfs_quota_us` where cgroup v1 has the controller); systemd's `CPUQuota=` and `AllowedCPUs=` end there. More threads than that
//! take turns on the same processors, and each operator of a model waits for the one that is not running. Half a processor of quota is none,
//! and one thread is always lent.

use std::{num::NonZeroUsize, thread};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// Threads per model; `None` is half of what is lent, at least one, since the links need the rest.
    pub asked: Option<NonZeroUsize>,
    /// What is lent; `None` asks the system, and again while the engine runs.
    pub lent: Option<NonZeroUsize>,
}

impl From<NonZeroUsize> for Threads {
    /// So many, if they are lent.
    fn from(asked: NonZeroUsize) -> Self {
        Self {
            asked: Some(asked),
            lent: None,
        }
    }
}

impl Threads {
    /// What is lent now. Reads a few files below `/proc` and `/sys/fs/cgroup`.
    pub fn lent(&self) -> NonZeroUsize {
        self.lent.unwrap_or_else(|| {
            // The standard library reads mask and quotas, nested ones, too; where it cannot, one is what there certainly is.
            thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
        })
    }

    /// What a model gets of `lent`: never more, and never none.
    pub fn granted(&self, lent: NonZeroUsize) -> NonZeroUsize {
        match self.asked {
            Some(asked) => asked.min(lent),
            None => NonZeroUsize::new(lent.get() / 2).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_gets_what_is_asked_and_lent_and_never_none() {
        let some = |count| NonZeroUsize::new(count).unwrap();
        let granted = |asked, lent| {
            let asked = NonZeroUsize::new(asked);
            Threads { asked, lent: None }.granted(some(lent)).get()
        };
        assert_eq!(granted(8, 2), 2);
        assert_eq!(granted(2, 8), 2);
        assert_eq!([1, 2, 3, 8].map(|lent| granted(0, lent)), [1, 1, 1, 4]);
        let threads = Threads::from(some(3));
        assert!(threads.granted(threads.lent()) <= threads.lent());
    }
}
