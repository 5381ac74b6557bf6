//! What a launch left in its buffers against what was recorded.

use std::collections::BTreeMap;

use sail_gpucheck::{Approximate, Case, Role};

/// What one case shows that did not fail.
#[derive(Debug, PartialEq)]
pub enum Found {
    Equal,
    /// Values differ as far as approximate functions may make them.
    Near(Differences),
    /// There is nothing to compare with.
    Nothing,
}

/// Values of bf16 that are not the simulator's.
#[derive(Debug, Default, PartialEq)]
pub struct Differences {
    pub values: u64,
    /// Most steps from one bf16 to the next between a value and the simulator's.
    pub most_steps: u64,
    /// How many differ by so many steps and no fewer than half of them: 1, 2, up to 4, up to 8, …
    pub steps: BTreeMap<u64, u64>,
    /// Most steps as the bound counts them: a small value's are as large as those at the floor.
    pub most_counted: f64,
}

/// Holds the buffers after a launch against what was recorded.
pub type Compare = fn(&Case, &[Vec<u8>]) -> Result<Found, String>;

/// What is only read is untouched, and the twin's values are near.
pub fn near(case: &Case, after: &[Vec<u8>]) -> Result<Found, String> {
    untouched(case, after)?;
    let Some(twin) = &case.head.twin else { return Ok(Found::Nothing) };
    let rms = rms(case.twin.iter().copied());
    let got = after[twin.buffer].as_chunks::<2>().0;
    for (at, (want, got)) in case.twin.iter().zip(got).enumerate() {
        let (want, got) = (f64::from(*want), f64::from(of_bf16(*got)));
        let room = twin.relative * want.abs() + twin.absolute * rms;
        let is_near = (got - want).abs() <= room; // false of what is no number
        if !is_near {
            return Err(format!("value {at} is {got}, the twin says {want} within {room}"));
        }
    }
    Ok(Found::Equal)
}

/// Every byte is the simulator's, or every value near it where approximate functions are asked for.
pub fn equal(case: &Case, after: &[Vec<u8>]) -> Result<Found, String> {
    untouched(case, after)?;
    let mut found = Differences::default();
    for (at, (simulated, after)) in case.after.iter().zip(after).enumerate() {
        let Some(simulated) = simulated.as_ref().filter(|simulated| *simulated != after) else {
            continue;
        };
        match case.head.approximate {
            Some(bound) => within(bound, simulated, after, &mut found),
            None => Err(first_difference(simulated, after)),
        }
        .map_err(|because| format!("argument {at}: {because}"))?;
    }
    Ok(if found == Differences::default() { Found::Equal } else { Found::Near(found) })
}

/// Adds to `found` how the values of one output differ; refuses the first that is too far.
fn within(
    bound: Approximate,
    simulated: &[u8],
    after: &[u8],
    found: &mut Differences,
) -> Result<(), String> {
    let (simulated, []) = simulated.as_chunks::<2>() else {
        return Err(format!("its {} bytes are no values of bf16", simulated.len()));
    };
    let after = after.as_chunks::<2>().0;
    let floor = bound.floor * rms(simulated.iter().map(|want| of_bf16(*want)));
    let pairs = simulated.iter().zip(after).enumerate();
    for (at, (simulated, got)) in pairs.filter(|(_, (simulated, got))| simulated != got) {
        let steps = ordered(*simulated).abs_diff(ordered(*got));
        let (want, got) = (of_bf16(*simulated), of_bf16(*got));
        let apart = (f64::from(got) - f64::from(want)).abs();
        let counted = (steps as f64).min(apart / step_at(floor));
        let is_near = counted <= f64::from(bound.steps); // false of infinities
        if !is_near || got.is_nan() || want.is_nan() {
            return Err(format!(
                "value {at} of {} is {got}, the simulator says {want}: {steps} steps of bf16 apart, or \
                 {counted:.3} at {floor:.3e}, where {} may be",
                after.len(),
                bound.steps
            ));
        }
        found.values += 1;
        found.most_steps = found.most_steps.max(steps);
        found.most_counted = found.most_counted.max(counted);
        *found.steps.entry(steps.next_power_of_two()).or_default() += 1;
    }
    Ok(())
}

fn first_difference(simulated: &[u8], after: &[u8]) -> String {
    let mut differing =
        simulated.iter().zip(after).enumerate().filter(|(_, (one, two))| one != two);
    let Some((at, (want, got))) = differing.next() else {
        return format!("it has {} bytes, the simulator's {}", after.len(), simulated.len());
    };
    // Most outputs are bf16, which is then more telling than a byte.
    let value = |bytes: &[u8]| bytes.as_chunks::<2>().0.get(at / 2).map(|value| of_bf16(*value));
    let as_bf16 = match (value(after), value(simulated)) {
        (Some(got), Some(want)) => format!("; as value {} of bf16 {got} and {want}", at / 2),
        _ => String::new(),
    };
    format!(
        "{} of {} bytes differ, and no function of the kernel is approximate; byte {at} is {got:#04x}, \
         the simulator says {want:#04x}{as_bf16}",
        1 + differing.count(),
        after.len()
    )
}

fn untouched(case: &Case, after: &[Vec<u8>]) -> Result<(), String> {
    let buffers = case.head.buffers.iter().zip(&case.before).zip(after).enumerate();
    for (at, ((buffer, before), after)) in buffers {
        match buffer.role {
            Role::Read if before != after => return Err(format!("argument {at} was written")),
            Role::Counters if before != after => {
                return Err(format!("argument {at}, counters, is not zero again"));
            }
            Role::Read | Role::Counters | Role::Written | Role::Scratch => {}
        }
    }
    Ok(())
}

fn rms(values: impl ExactSizeIterator<Item = f32>) -> f64 {
    let count = values.len().max(1) as f64;
    let squares: f64 = values.map(|value| f64::from(value).powi(2)).sum();
    (squares / count).sqrt()
}

fn of_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// From one bf16 to the next at `magnitude`: 8 bits of significand.
fn step_at(magnitude: f64) -> f64 {
    magnitude.max(f64::from(f32::MIN_POSITIVE)).log2().floor().exp2() / 128.0
}

/// Neighbouring bf16 are neighbouring numbers.
fn ordered(bytes: [u8; 2]) -> i64 {
    let bits = u16::from_le_bytes(bytes);
    let magnitude = i64::from(bits & 0x7fff);
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use sail_gpucheck::{Buffer, Head, Twin};
    use sail_ir::plan::Cuda;

    use super::*;

    /// Bits of bf16, one after the other.
    fn bytes(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }

    /// An output that the simulator fills with `simulated`, behind one that is only read.
    fn case(approximate: Option<Approximate>, simulated: Vec<u8>) -> Case {
        let cuda = Cuda {
            entry: "kernel".to_owned(),
            threads: 32,
            shared_bytes: 0,
            cluster: 1,
            most_blocks: 0,
            tensor_maps: Vec::new(),
        };
        let buffer = |role| Buffer { bytes: simulated.len() as u64, uniform: Some(0), role };
        let head = Head {
            symbol: "kernel".to_owned(),
            family: "family".to_owned(),
            target: "sm_90".to_owned(),
            ptx: "kernel.ptx".to_owned(),
            cuda,
            map_rows: Vec::new(),
            blocks: 1,
            control: Vec::new(),
            buffers: vec![buffer(Role::Read), buffer(Role::Written)],
            approximate,
            twin: None,
        };
        let before = vec![vec![0; simulated.len()]; 2];
        Case { head, before, after: vec![None, Some(simulated)], twin: Vec::new() }
    }

    fn compared(
        approximate: Option<Approximate>,
        want: &[u16],
        got: &[u16],
    ) -> Result<Found, String> {
        let case = case(approximate, bytes(want));
        equal(&case, &[case.before[0].clone(), bytes(got)])
    }

    const ONE: u16 = 0x3f80;
    const STEPS: Option<Approximate> = Some(Approximate { steps: 2, floor: 0.0 });
    const FLOORED: Option<Approximate> = Some(Approximate { steps: 2, floor: 1.0 });

    #[test]
    fn without_approximate_functions_one_bit_is_a_failure_that_names_both_values() {
        assert_eq!(compared(None, &[ONE, ONE], &[ONE, ONE]), Ok(Found::Equal));
        let because = compared(None, &[ONE, ONE], &[ONE, ONE + 1]).unwrap_err();
        assert!(because.starts_with("argument 1: 1 of 4 bytes differ"), "{because}");
        assert!(because.contains("byte 2 is 0x81, the simulator says 0x80"), "{because}");
        assert!(because.ends_with("as value 1 of bf16 1.0078125 and 1"), "{because}");
    }

    #[test]
    fn as_many_steps_as_may_be_pass_and_are_counted() {
        let found = compared(STEPS, &[ONE, ONE, ONE, ONE], &[ONE, ONE - 1, ONE + 2, ONE + 1]);
        let steps = BTreeMap::from([(1, 2), (2, 1)]);
        let differences = Differences { values: 3, most_steps: 2, steps, most_counted: 2.0 };
        assert_eq!(found, Ok(Found::Near(differences)));
    }

    #[test]
    fn one_step_more_is_a_failure_that_names_output_index_and_both_values() {
        let because = compared(STEPS, &[ONE, ONE, ONE], &[ONE, ONE, ONE + 3]).unwrap_err();
        let says =
            "argument 1: value 2 of 3 is 1.0234375, the simulator says 1: 3 steps of bf16 apart";
        assert!(because.starts_with(says), "{because}");
        assert!(because.ends_with("where 2 may be"), "{because}");
    }

    #[test]
    fn a_small_value_may_differ_by_steps_at_the_floor_and_by_no_more() {
        // The root mean square of 1, 1 and something small is 0.8, where a step is 2^-8.
        let small = |eighths_of_steps: f32| (eighths_of_steps / 2048.0).to_bits() >> 16;
        let [zero, near, far] = [0.0, 16.0, 17.0].map(|it| u16::try_from(small(it)).unwrap());
        let Ok(Found::Near(found)) = compared(FLOORED, &[ONE, ONE, zero], &[ONE, ONE, near]) else {
            panic!("two steps at the floor may be");
        };
        assert_eq!(found.most_counted, 2.0);
        assert!(found.most_steps > 1000, "{found:?}");
        assert!(compared(FLOORED, &[ONE, ONE, zero], &[ONE, ONE, far]).is_err());
        assert!(compared(STEPS, &[ONE, ONE, zero], &[ONE, ONE, near]).is_err());
    }

    #[test]
    fn what_is_no_number_and_what_is_wholly_wrong_is_a_failure() {
        const NAN: u16 = 0x7fc0;
        const INFINITE: u16 = 0x7f80;
        for wrong in [NAN, INFINITE, 0, ONE | 0x8000, ONE + 0x80] {
            assert!(compared(FLOORED, &[ONE; 4], &[ONE, ONE, ONE, wrong]).is_err(), "{wrong:#x}");
            assert!(compared(FLOORED, &[ONE, ONE, ONE, wrong], &[ONE; 4]).is_err(), "{wrong:#x}");
        }
    }

    #[test]
    fn an_approximate_output_that_is_no_bf16_is_a_failure() {
        let case = case(STEPS, vec![1, 2, 3]);
        let because = equal(&case, &[case.before[0].clone(), vec![1, 2, 4]]).unwrap_err();
        assert_eq!(because, "argument 1: its 3 bytes are no values of bf16");
    }

    #[test]
    fn what_is_only_read_and_counters_are_as_they_were() {
        let mut case = case(STEPS, bytes(&[ONE]));
        let because = equal(&case, &[bytes(&[1]), bytes(&[ONE])]).unwrap_err();
        assert_eq!(because, "argument 0 was written");
        case.head.buffers[0].role = Role::Counters;
        let because = equal(&case, &[bytes(&[1]), bytes(&[ONE])]).unwrap_err();
        assert_eq!(because, "argument 0, counters, is not zero again");
    }

    #[test]
    fn the_twin_says_how_near_a_value_must_be() {
        let mut case = case(None, bytes(&[ONE; 2]));
        let got = |value| [case_before(), bytes(&[ONE, value])];
        assert_eq!(near(&case, &got(ONE)), Ok(Found::Nothing));
        case.head.twin = Some(Twin { buffer: 1, values: 2, relative: 0.01, absolute: 0.0 });
        case.twin = vec![1.0, 1.0];
        assert_eq!(near(&case, &got(ONE + 1)), Ok(Found::Equal));
        let because = near(&case, &got(ONE + 2)).unwrap_err();
        assert_eq!(because, "value 1 is 1.015625, the twin says 1 within 0.01");
        assert!(near(&case, &got(0x7fc0)).is_err());
    }

    fn case_before() -> Vec<u8> {
        vec![0; 4]
    }
}
