//! Small numbers about the machine and about repeated measurements.

use sail_ir::plan::Arithmetic;

use crate::Program;
use crate::device::probe::{self, ReadProbe};
use crate::device::{DeviceError, host};
use crate::trace::Limits;

/// Measures what the device of a program can do at best.
pub(super) struct Probe<'p> {
    program: &'p Program,
    /// This machine's own; absent where the device tells by itself.
    read: Option<ReadProbe>,
    /// Threads that compute: one where the device is not this machine's processor.
    pub threads: usize,
    given: Option<Operations>,
}

/// Operations in a second, in floats and in 8-bit integers, as somebody else has measured them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Operations {
    pub floats: f64,
    pub bytes: f64,
}

impl std::str::FromStr for Operations {
    type Err = String;

    /// `650e12,1200e12`.
    fn from_str(text: &str) -> Result<Self, String> {
        let rate = |text: &str| text.trim().parse().ok().filter(|rate| *rate > 0.0);
        let both = text
            .split_once(',')
            .and_then(|(floats, bytes)| Some(Self { floats: rate(floats)?, bytes: rate(bytes)? }));
        let finite = both.filter(|both| both.floats.is_finite() && both.bytes.is_finite());
        finite.ok_or_else(|| "two rates are meant, as in `650e12,1200e12`".to_owned())
    }
}

/// Where the limit of operations comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// On all threads of this machine.
    Measured,
    /// By the data sheet, at the highest clock.
    DataSheet,
    /// On the command line.
    Given,
}

impl<'p> Probe<'p> {
    /// `threads` as asked for; all processors by default.
    ///
    /// Refuses when there is no memory to read.
    pub fn new(program: &'p Program, threads: Option<usize>) -> Result<Self, DeviceError> {
        let tells = program.engine().limits().transpose()?.is_some();
        let threads = if tells { 1 } else { threads.unwrap_or_else(host::processors) };
        let read = (!tells).then(|| ReadProbe::new(threads)).transpose()?;
        Ok(Self { program, read, threads, given: None })
    }

    /// The same with the operations that somebody else has measured.
    pub fn with(self, given: Option<Operations>) -> Self {
        Self { given, ..self }
    }

    /// Whether the device tells its limits by itself, as a GPU does.
    pub fn tells(&self) -> bool {
        self.read.is_none()
    }

    /// Where the limit of operations comes from.
    pub fn origin(&self) -> Origin {
        match (self.given, &self.read) {
            (Some(_), _) => Origin::Given,
            (None, Some(_)) => Origin::Measured,
            (None, None) => Origin::DataSheet,
        }
    }

    /// Of these seconds: neighbours on a shared machine change it.
    ///
    /// Refuses what the device refuses.
    pub fn measure(&self) -> Result<Limits, DeviceError> {
        let limits = self.found()?;
        Ok(match self.given {
            None => limits,
            Some(Operations { floats, bytes }) => {
                Limits { operations: floats, byte_operations: bytes, ..limits }
            }
        })
    }

    fn found(&self) -> Result<Limits, DeviceError> {
        let target = &self.program.manifest().target;
        match &self.read {
            Some(read) => Ok(Limits {
                read_bytes: read.measure(),
                operations: probe::operations(target, Arithmetic::Floats, self.threads),
                byte_operations: probe::operations(target, Arithmetic::Bytes, self.threads),
            }),
            None => {
                let told = self.program.engine().limits();
                told.expect("broken invariant `device.tells`: it did before")
            }
        }
    }
}

/// Middle, least and most of some measurements.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// # Panics
    ///
    /// When there are no measurements.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (values[0], values[values.len() - 1]);
        Self { median: values[values.len() / 2], min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_middle_least_and_most() {
        let spread = Spread::of([4.0, 1.0, 2.0].into_iter());
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 4.0 });
    }

    #[test]
    fn operations_are_two_rates_above_zero() {
        let both = Operations { floats: 650e12, bytes: 1.2e15 };
        assert_eq!("650e12, 1200e12".parse(), Ok(both));
        for wrong in ["650e12", "0,1", "1,-1", "1,inf", "a,b", "1,2,3"] {
            assert!(wrong.parse::<Operations>().is_err(), "{wrong}");
        }
    }
}
