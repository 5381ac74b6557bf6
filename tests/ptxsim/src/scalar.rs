//! What one lane computes: a table from the words of an opcode to a function of up to three words.
//!
//! A word is 64 bits; values narrower than that stand in the low bits, the rest is zero.

pub(crate) mod convert;
mod float;
pub(crate) mod formats;
mod half;
mod integer;
mod pick;

pub(crate) use integer::pack_bytes;
pub(crate) use pick::{insert, three_way};

/// A lane's function; sources that an opcode lacks are ignored.
pub(crate) type Function = fn(u64, u64, u64) -> u64;

/// A function and how many sources its opcode names.
#[derive(Clone, Copy)]
pub(crate) struct Scalar {
    pub function: Function,
    pub sources: usize,
}

/// Look up an opcode that computes in a lane, by all its words.
pub(crate) fn find(opcode: &str) -> Option<Scalar> {
    let (name, ty) = opcode.rsplit_once('.')?;
    let (verb, rest) = name.split_once('.').unwrap_or((name, ""));
    let mut flags: Vec<&str> = rest.split('.').filter(|word| !word.is_empty()).collect();
    let found = match ty {
        "f16" | "bf16" | "f16x2" | "bf16x2" => half::find(verb, &mut flags, ty),
        "s16x2" | "u16x2" => integer::pair(verb, ty),
        "f32" | "f64" => float::find(verb, &mut flags, ty),
        _ => pick::find(verb, &mut flags, ty).or_else(|| integer::find(verb, &mut flags, ty)),
    };
    // A word that nobody took changes the meaning in a way not known here.
    found.filter(|_| flags.is_empty())
}

/// A comparison for `setp` and `set`: true when `a` and `b` are in the relation.
pub(crate) type Relation = fn(u64, u64) -> bool;

/// Look up a comparison by its word and type.
pub(crate) fn relation(compare: &str, ty: &str) -> Option<Relation> {
    match ty {
        "f16" | "bf16" | "f32" | "f64" => float::relation(compare, ty),
        _ => integer::relation(compare, ty),
    }
}

/// Remove `flag` from `flags`; was it there?
fn take(flags: &mut Vec<&str>, flag: &str) -> bool {
    let found = flags.iter().position(|word| *word == flag);
    if let Some(at) = found {
        flags.remove(at);
    }
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::find;

    fn run(opcode: &str, a: u64, b: u64, c: u64) -> u64 {
        (find(opcode).unwrap_or_else(|| panic!("{opcode} is not known")).function)(a, b, c)
    }

    #[test]
    fn integers() {
        assert_eq!(run("add.s32", 0xffff_ffff, 1, 0), 0);
        assert_eq!(run("mul.wide.s32", 0xffff_ffff, 2, 0), -2i64 as u64);
        assert_eq!(run("mul.hi.u32", 0x8000_0000, 4, 0), 2);
        assert_eq!(run("mad.lo.s32", 3, 4, 5), 17);
        assert_eq!(run("shr.s32", 0x8000_0000, 40, 0), 0xffff_ffff);
        assert_eq!(run("shl.b32", 1, 32, 0), 0);
        assert_eq!(run("bfe.u32", 0xabcd, 4, 8), 0xbc);
        assert_eq!(run("bfe.s32", 0x80, 4, 4), 0xffff_fff8);
        assert_eq!(run("prmt.b32", 0x3322_1100, 0x7766_5544, 0x7531), 0x7755_3311);
        assert_eq!(run("shf.l.wrap.b32", 0x8000_0000, 1, 1), 3);
        assert_eq!(run("clz.b32", 1, 0, 0), 31);
        assert_eq!(run("dp4a.s32.s32", 0xff01_0203, 0x0101_0101, 10), 15);
        assert_eq!(run("div.s32", -7i32 as u32 as u64, 2, 0), -3i32 as u32 as u64);
        assert_eq!(run("max.s16x2", 0xffff_0005, 0x0001_fffe, 0), 0x0001_0005);
        assert!(find("add.odd.s32").is_none());
    }

    #[test]
    fn floats() {
        let bits = |x: f32| u64::from(x.to_bits());
        assert_eq!(run("fma.rn.f32", bits(3.0), bits(4.0), bits(5.0)), bits(17.0));
        assert_eq!(run("ex2.approx.ftz.f32", bits(3.0), 0, 0), bits(8.0));
        assert_eq!(run("min.f32", bits(f32::NAN), bits(2.0), 0), bits(2.0));
        assert_eq!(run("add.ftz.f32", 1, 0, 0), 0);
        assert_eq!(run("add.f32", 1, 0, 0), 1);
        assert_eq!(run("mul.bf16x2", 0x4000_3f80, 0x4040_4000, 0), 0x40c0_4000);
        assert_eq!(run("fma.rn.f16", 0x3c00, 0x4000, 0x3c00), 0x4200);
    }
}
