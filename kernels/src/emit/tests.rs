//! The builder's words, executed on every target this machine runs.

use super::run::{
    Counts, Loaded, Race, Snippet, bf16_bytes, bf16_values, f32_bytes, f32_values, i32_bytes,
    i32_values, poisoned, random, targets_here,
};
use super::{Bf16, Builder, F32, I32};
use crate::kernel::{EmitError, Rows, assembly, compile, llvm_ir};
use sail_ir::target::Target;

const ONE: Counts = Counts { tokens: 1, images: 0, outputs: 0, pages_per_slot: 0 };

/// `write` applied to each f32 of `x`, on one target.
fn map_f32(
    target: &Target,
    x: &[f32],
    write: impl for<'c> Fn(&mut Builder<'c>, F32<'c>) -> F32<'c> + Sync,
) -> Vec<f32> {
    let count = x.len() as u64;
    let kernel = Snippet::new(&["x", "y"], |k: &mut Builder<'_>| {
        let [x, y] = k.arguments::<2>();
        k.for_each_piece(count, |k, piece| {
            let value = k.read::<F32>(x, piece);
            let value = write(k, value);
            k.write(y, piece, value);
        });
    });
    let (mut x, mut y) = (f32_bytes(x), poisoned(4 * x.len()));
    Loaded::new(&kernel, target).run(ONE, &mut [&mut x, &mut y]);
    f32_values(&y)
}

/// Largest distance to `exact` in units of the last place of an f32.
fn worst_ulps(x: &[f32], y: &[f32], exact: impl Fn(f64) -> f64) -> f64 {
    let distance = |(x, y): (&f32, &f32)| {
        let exact = exact(f64::from(*x));
        let ulp = f64::from(f32::EPSILON) * exact.abs().max(f64::from(f32::MIN_POSITIVE)) / 2.0;
        (f64::from(*y) - exact).abs() / ulp
    };
    x.iter().zip(y).map(distance).fold(0.0, f64::max)
}

fn spread(from: f32, to: f32) -> Vec<f32> {
    random(7, 4099).iter().map(|r| from + (to - from) * (r + 1.0) / 2.0).collect()
}

#[test]
fn exp_is_good_to_three_half_ulps_and_knows_its_ends() {
    for target in targets_here() {
        let x = spread(-87.0, 88.7);
        let worst = worst_ulps(&x, &map_f32(&target, &x, |k, x| k.exp(x)), f64::exp);
        assert!(worst < 3.0, "{target}: {worst} half ulps");

        let ends = [f32::NEG_INFINITY, -1000.0, -104.0, 0.0, -0.0, 89.0, f32::INFINITY, f32::NAN];
        let y = map_f32(&target, &ends, |k, x| k.exp(x));
        assert_eq!(y[..7], [0.0, 0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY], "{target}");
        assert!(y[7].is_nan(), "{target}");

        let tiny = spread(-103.0, -88.0);
        let y = map_f32(&target, &tiny, |k, x| k.exp(x));
        for (x, y) in tiny.iter().zip(y) {
            let exact = f64::from(*x).exp();
            assert!(
                (f64::from(y) - exact).abs() < 2e-45 + exact * 3e-7,
                "{target}: exp({x}) = {y}"
            );
        }
    }
}

#[test]
fn gelu_keeps_its_digits_far_out_on_the_negative_side() {
    let exact = |x: f64| x * 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
    for target in targets_here() {
        let x = spread(-9.0, 9.0);
        let worst = worst_ulps(&x, &map_f32(&target, &x, |k, x| k.gelu(x)), exact);
        assert!(worst < 200.0, "{target}: {worst} half ulps"); // 1.2e-5; bf16 rounds at 2e-3
        let ends = [0.0, 20.0, -20.0, 1e30];
        let y = map_f32(&target, &ends, |k, x| k.gelu(x));
        assert_eq!((y[0], y[1], y[3]), (0.0, 20.0, 1e30), "{target}");
        assert!(y[2].abs() < 1e-40 && map_f32(&target, &[f32::NAN], |k, x| k.gelu(x))[0].is_nan());
    }
}

#[test]
fn erf_silu_sigmoid_and_rsqrt_are_near_the_exact_ones() {
    for target in targets_here() {
        let x = spread(-20.0, 20.0);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let worst = worst_ulps(&x, &map_f32(&target, &x, |k, x| k.sigmoid(x)), sigmoid);
        assert!(worst < 6.0, "{target}: sigmoid {worst}");
        let worst = worst_ulps(&x, &map_f32(&target, &x, |k, x| k.silu(x)), |x| x * sigmoid(x));
        assert!(worst < 6.0, "{target}: silu {worst}");
        for (x, y) in x.iter().zip(map_f32(&target, &x, |k, x| k.erf(x))) {
            assert!((f64::from(y) - libm::erf(f64::from(*x))).abs() < 3e-7, "{target}: erf({x})");
        }
        let x = spread(1e-6, 100.0);
        let worst = worst_ulps(&x, &map_f32(&target, &x, |k, x| k.rsqrt(x)), |x| x.sqrt().recip());
        assert!(worst < 3.0, "{target}: rsqrt {worst}");
    }
}

#[test]
fn rounding_to_bf16_is_to_the_nearest_even_and_keeps_nan() {
    let mut x = spread(-3.0, 3.0);
    x.extend([
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
    ]);
    x.push(f32::NAN);
    x.push(f32::from_bits(0x7f80_0001));
    for target in targets_here() {
        let y = map_f32(&target, &x, |k, x| k.rounded(x));
        for (x, y) in x.iter().zip(&y) {
            let expected = half::bf16::from_f32(*x).to_f32();
            assert!(
                y.to_bits() == expected.to_bits() || (x.is_nan() && y.is_nan()),
                "{target}: {x} became {y}"
            );
        }
    }
}

#[test]
fn a_dot_product_takes_the_high_halves_first_and_rounds_each_step() {
    for target in targets_here() {
        let lanes = target.limits().lanes as usize;
        let kernel = Snippet::new(&["a", "b", "acc", "y"], |k: &mut Builder<'_>| {
            let [a, b, acc, y] = k.arguments::<4>();
            let lanes = k.lanes();
            let (a, b) = (k.load::<I32>(a, lanes), k.load_word_everywhere(b, lanes));
            let acc = k.load::<F32>(acc, lanes);
            let sum = k.dot_bf16(acc, a, b);
            k.store(y, sum);
        });
        let (a, b) = (random(1, 2 * lanes), random(2, 2));
        let acc: Vec<f32> = random(3, lanes).iter().map(|v| v * 1e-3).collect();
        let (mut a, mut b, mut acc) = (bf16_bytes(&a), bf16_bytes(&b), f32_bytes(&acc));
        let mut y = poisoned(4 * lanes);
        Loaded::new(&kernel, &target).run(ONE, &mut [&mut a, &mut b, &mut acc, &mut y]);
        let (a, b, acc) = (bf16_values(&a), bf16_values(&b), f32_values(&acc));
        for (lane, y) in f32_values(&y).into_iter().enumerate() {
            let high = a[2 * lane + 1].mul_add(b[1], acc[lane]);
            assert_eq!(y, a[2 * lane].mul_add(b[0], high), "{target} lane {lane}");
        }
    }
}

#[test]
fn a_dot_product_of_bytes_is_exact_on_every_level_also_at_its_ends() {
    let unsigned = |seed: u64| random(seed, 64).iter().map(|v| ((v + 1.0) * 127.9) as u8).collect();
    let signed = |seed: u64| random(seed, 64).iter().map(|v| (v * 127.9) as i8 as u8).collect();
    let cases: [(Vec<u8>, Vec<u8>); 3] = [
        (unsigned(1), signed(2)),
        (vec![255; 64], vec![128; 64]), // -128: what saturates where pairs are added in 16 bits
        (vec![255; 64], vec![127; 64]),
    ];
    for target in targets_here() {
        let lanes = target.limits().lanes as usize;
        for (a, b) in &cases {
            let kernel = Snippet::new(&["a", "b", "acc", "y"], |k: &mut Builder<'_>| {
                let [a, b, acc, y] = k.arguments::<4>();
                let lanes = k.lanes();
                let [a, b, acc] = [a, b, acc].map(|from| k.load::<I32>(from, lanes));
                let sum = k.dot_bytes(acc, a, b);
                k.store(y, sum);
            });
            let (mut a, mut b) = (a[..4 * lanes].to_vec(), b[..4 * lanes].to_vec());
            let acc: Vec<i32> = (0..lanes as i32).map(|lane| lane * 100_003 - 7).collect();
            let mut y = poisoned(4 * lanes);
            let mut start = i32_bytes(&acc);
            Loaded::new(&kernel, &target).run(ONE, &mut [&mut a, &mut b, &mut start, &mut y]);
            for (lane, y) in i32_values(&y).into_iter().enumerate() {
                let quads = a[4 * lane..].iter().zip(&b[4 * lane..]).take(4);
                let want: i32 = quads.map(|(a, b)| i32::from(*a) * i32::from(*b as i8)).sum();
                assert_eq!(y, acc[lane] + want, "{target} lane {lane}");
            }
        }
    }
}

#[test]
fn loops_carry_values_branches_choose_and_halves_reduce() {
    for target in targets_here() {
        let kernel = Snippet::new(&["numbers", "y"], |k: &mut Builder<'_>| {
            let [numbers, y] = k.arguments::<2>();
            let lanes = k.lanes();
            let (begin, end, zero) = (k.index(0), k.index(10), k.i32(0));
            let (sum, odd) = k.fold(begin, end, 1, (zero, zero), |k, i, (sum, odd)| {
                let place = k.at::<I32>(numbers, i);
                let value = k.load::<I32>(place, 1);
                let rest = k.rem_constant(i, 2);
                let one = k.index(1);
                let is_odd = k.equal(rest, one);
                let odd = k.choose(is_odd, |k| k.add(odd, value), |_| odd);
                (k.add(sum, value), odd)
            });
            let ramp = k.lane_numbers(lanes);
            let total = k.sum_lanes(ramp);
            let ramp = k.f32_of(ramp);
            let most = k.max_lanes(ramp);
            let most = k.truncate(most);
            for (at, value) in [sum, odd, total, most].into_iter().enumerate() {
                let place = k.at_bytes_constant(y, 4 * at as u64);
                k.store(place, value);
            }
        });
        let mut numbers = i32_bytes(&(1..=10).collect::<Vec<_>>());
        let mut y = poisoned(16);
        Loaded::new(&kernel, &target).run(ONE, &mut [&mut numbers, &mut y]);
        let lanes = target.limits().lanes as i32;
        assert_eq!(i32_values(&y), [55, 30, lanes * (lanes - 1) / 2, lanes - 1], "{target}");
    }
}

#[test]
fn partial_vectors_touch_nothing_beyond_their_count() {
    for target in targets_here() {
        let lanes = target.limits().lanes as usize;
        for count in 0..=lanes {
            let kernel = Snippet::new(&["x", "y"], move |k: &mut Builder<'_>| {
                let [x, y] = k.arguments::<2>();
                let lanes = k.lanes();
                let count = k.index(count as u64);
                let value = k.load_partial::<Bf16>(x, lanes, count);
                k.store_partial(y, value, count);
            });
            let (mut x, mut y) = (bf16_bytes(&random(1, count)), poisoned(2 * count));
            Loaded::new(&kernel, &target).run(ONE, &mut [&mut x, &mut y]);
            assert_eq!(x, y, "{target} {count}");
        }
    }
}

#[test]
fn tables_are_read_from_the_codes_own_constants() {
    for target in targets_here() {
        let values = [3.5, -1.0, 1e10, 0.25, 7.0];
        let kernel = Snippet::new(&["at", "y"], move |k: &mut Builder<'_>| {
            let [at, y] = k.arguments::<2>();
            let table = k.table(&values);
            let at = k.load::<I32>(at, 1);
            let at = k.index_of(at);
            let place = k.at::<F32>(table, at);
            let value = k.load::<F32>(place, 1);
            k.store(y, value);
        });
        let (mut at, mut y) = (i32_bytes(&[3]), poisoned(4));
        Loaded::new(&kernel, &target).run(ONE, &mut [&mut at, &mut y]);
        assert_eq!(f32_values(&y), [0.25], "{target}");
    }
}

#[test]
fn a_call_out_of_the_code_is_refused_by_name() {
    let kernel = Snippet::new(&["y"], |k: &mut Builder<'_>| {
        let [y] = k.arguments::<1>();
        let value = k.load::<F32>(y, 1);
        let kind = k.vector_type(super::ElementKind::F32, 1);
        let sine = k.intrinsic("llvm.sin", &[kind], &[super::Value::raw(value)]);
        k.store(y, <F32 as super::Value>::from_raw(sine));
    });
    let target = Target::parse("x86-64-v3").unwrap();
    let error = compile(&[&kernel], &target, 1).unwrap_err();
    let EmitError::Llvm { message, .. } = &error else { panic!("{error}") };
    assert_eq!(message, "the code calls `sinf`, which is not in it");
}

#[test]
fn code_does_not_depend_on_the_number_of_threads() {
    let add = |width| crate::elementwise::add::Add { rows: crate::Rows::TOKENS, width };
    let kernels = [add(5), add(64), add(100)];
    let kernels: Vec<&dyn crate::Kernel> =
        kernels.iter().map(|k| k as &dyn crate::Kernel).collect();
    let target = Target::parse("x86-64-v4+avx512bf16").unwrap();
    let one = compile(&kernels, &target, 1).unwrap();
    assert_eq!(one, compile(&kernels, &target, 3).unwrap());
    assert!(one.offsets.iter().all(|offset| offset % 64 == 0));
}

#[test]
fn assembly_and_ir_show_the_kernel_and_its_phases() {
    let kernel = crate::elementwise::add::Add { rows: crate::Rows::TOKENS, width: 64 };
    let target = Target::parse("znver4").unwrap();
    assert!(llvm_ir(&kernel, &target).unwrap().contains("1 add: vectors of the row"));
    let text = assembly(&kernel, &target).unwrap();
    assert!(text.contains("vcvtneps2bf16") && text.contains("zmm"), "{text}");
}

#[test]
fn a_race_runs_every_item_of_both_kernels_on_any_number_of_threads() {
    let Some(target) = targets_here().pop() else { return };
    let kernel = crate::elementwise::Add { rows: Rows::TOKENS, width: 40 };
    let (rows, loaded) = (100, Loaded::new(&kernel, &target));
    let [x, y] = [1, 2].map(|seed| bf16_bytes(&random(seed, rows * 40)));
    let counts = Counts { tokens: rows as u32, ..Counts::default() };
    let mut want = poisoned(x.len());
    loaded.run(counts, &mut [&mut x.clone(), &mut y.clone(), &mut want]);
    for threads in [1, 2, 3] {
        let mut race = Race::new(threads, &[x.clone(), y.clone(), poisoned(x.len())], Some(0));
        let times = race.run(counts, [&loaded, &loaded], 5);
        assert_eq!(times.len(), 5);
        assert!(race.get(2) == want, "{threads} threads");
        race.put(2, &[0; 4]);
        assert_eq!(race.get(2)[..4], [0; 4]);
    }
}
