//! What must hold of every kernel's machine code.

use sail_ir::Target;
use sail_ir::artifact::KernelUsage;
use sail_kernels::kernel::ThreadBlock;

/// Registers of a multiprocessor, and what a warp gets them by.
const REGISTERS: u32 = 1 << 16;
const REGISTERS_BY: u32 = 256;

/// Most registers of a thread.
const MOST_REGISTERS: u32 = 255;

/// Shared memory that a block takes beside its own.
const RESERVED_SHARED: u32 = 1 << 10;

/// A kernel's plan, its text and what the assembler made of it.
#[derive(Debug, Clone)]
pub struct Assembled {
    pub usage: KernelUsage,
    pub block: ThreadBlock,
    pub ptx: String,
    /// Instructions of the machine.
    pub code: String,
}

/// Instructions of matrix units: in PTX (all words), and those of which the machine's code must have one.
const MATRIX: [(&[&str], &[&str]); 4] = [
    (&["wgmma.mma_async", ".bf16"], &["HGMMA"]),
    (&["wgmma.mma_async", ".s8"], &["IGMMA"]),
    (&["mma.sync", ".bf16"], &["HMMA"]),
    (&["mma.sync", ".s8"], &["IMMA"]),
];

/// As [`MATRIX`]: eight-bit numbers with a point.
const MATRIX_FP8: (&[&str], &[&str]) = (&["wgmma.mma_async", ".e4m3"], &["QGMMA"]);

/// What is wrong with a kernel, a sentence each.
pub fn broken(kernel: &Assembled, target: &Target) -> Vec<String> {
    let Assembled { usage, block, ptx, code } = kernel;
    let mut broken = Vec::new();
    let mut tell = |text: String| broken.push(format!("`{}` {text}", usage.entry));
    if usage.spill_bytes != 0 || usage.stack_bytes != 0 {
        tell(format!(
            "spills {} bytes and has {} bytes of stack",
            usage.spill_bytes, usage.stack_bytes
        ));
    }
    let local = |line: &&str| ["LDL", "STL"].iter().any(|word| has_opcode(line, word));
    if let Some(line) = code.lines().find(local) {
        tell(format!("uses local memory: {}", line.trim()));
    }
    let most = match (block.registers, block.blocks_per_processor) {
        (0, 0) => MOST_REGISTERS,
        (0, blocks) => (REGISTERS / (blocks * block.threads)).min(MOST_REGISTERS),
        (registers, _) => registers,
    };
    if usage.registers > most {
        tell(format!("has {} registers, its plan says at most {most}", usage.registers));
    }
    let blocks = block.blocks_per_processor.max(1);
    let of_warp = (usage.registers * 32).next_multiple_of(REGISTERS_BY);
    let registers = blocks * (block.threads / 32) * of_warp;
    if registers > REGISTERS {
        tell(format!("takes {registers} registers for {blocks} blocks, there are {REGISTERS}"));
    }
    let limits = target.gpu().expect("it is a CUDA target");
    let shared = blocks * (block.shared_bytes + RESERVED_SHARED);
    // A multiprocessor has 1 KiB more than the largest block may have.
    let most = limits.shared_bytes + RESERVED_SHARED;
    if shared > most {
        tell(format!(
            "takes {shared} bytes of shared memory for {blocks} blocks, there are {most}"
        ));
    }
    let fixed = |line: &&str| line.contains(".shared .align") && !line.contains(".extern");
    if let Some(line) = ptx.lines().find(fixed) {
        tell(format!("has shared memory that its plan does not know: {}", line.trim()));
    }
    for (asked, machine) in MATRIX.into_iter().chain([MATRIX_FP8]) {
        let asks = ptx.lines().any(|line| asked.iter().all(|word| line.contains(word)));
        let does = |word: &&str| code.lines().any(|line| has_opcode(line, word));
        if asks && !machine.iter().any(does) {
            tell(format!("asks for `{}` and has no {}", asked.join(" "), machine.join(" or ")));
        }
    }
    broken
}

/// Is `opcode`, with or without modifiers, the instruction of a line of code?
fn has_opcode(line: &str, opcode: &str) -> bool {
    line.split_whitespace().any(|word| word.split('.').next() == Some(opcode))
}

/// Products that cannot use the matrix units of warpgroups: a part of the entry, and why.
const ELSEWHERE: [(&str, &str); 3] = [
    ("_rows8x", "few rows are bound by reading the weight"),
    ("_rows16x", "so are twice as many"),
    ("_k588_", "rows of 1176 bytes begin where no tensor map can"),
];

/// Products that do not use the matrix units of warpgroups, which `sm_90` has, without a reason; and
/// those that do and have one.
pub fn missing(all: &[Assembled], target: &Target) -> impl Iterator<Item = String> {
    let hopper = target.has("sm_90a");
    let products = all.iter().filter(move |one| {
        let entry = &one.usage.entry;
        hopper && ["linear", "gate_up_silu", "grouped_"].iter().any(|name| entry.starts_with(name))
    });
    products.filter_map(|one| {
        let entry = &one.usage.entry;
        let wide = ["HGMMA", "IGMMA", "QGMMA"];
        let does = one.code.lines().any(|line| wide.iter().any(|word| has_opcode(line, word)));
        let reason = ELSEWHERE.iter().find(|(part, _)| entry.contains(part));
        match (does, reason) {
            (false, None) => Some(format!("`{entry}` has none of HGMMA, IGMMA, QGMMA")),
            (true, Some((_, reason))) => Some(format!("`{entry}` is excused although: {reason}")),
            _ => None,
        }
    })
}

/// Each gate closes where it should.
pub fn each_breaks() {
    let target = Target::parse("sm_90").expect("a target of ours");
    let usage =
        KernelUsage { entry: "linear_n8".to_owned(), registers: 100, ..KernelUsage::default() };
    let block = ThreadBlock { blocks_per_processor: 2, ..ThreadBlock::of(256).with_shared(40_000) };
    let fine = Assembled {
        usage,
        block,
        ptx: ".extern .shared .align 16 .b8 s[];\nwgmma.mma_async.sync.m64n8k16.f32.bf16.bf16 {}"
            .into(),
        code: "/*0000*/ HGMMA.64x8x16.F32.BF16 R4, gdesc[UR4] ;".into(),
    };
    assert_eq!(broken(&fine, &target), Vec::<String>::new());
    type Way = (&'static str, fn(&mut Assembled));
    let ways: [Way; 10] = [
        ("spills 4 bytes", |it| it.usage.spill_bytes = 4),
        ("8 bytes of stack", |it| it.usage.stack_bytes = 8),
        ("local memory", |it| it.code.push_str("\n/*0010*/ STL.64 [R1], R2 ;")),
        ("at most 128", |it| it.usage.registers = 136),
        ("takes 69632 registers", |it| {
            (it.usage.registers, it.block.registers) = (136, 168);
            it.block.blocks_per_processor = 2;
        }),
        ("bytes of shared memory", |it| it.block.shared_bytes = 130_000),
        ("its plan does not know", |it| it.ptx.push_str("\n.shared .align 4 .b8 t[4];")),
        ("no IGMMA", |it| it.ptx = it.ptx.replace("k16.f32.bf16.bf16", "k32.s32.s8.s8")),
        ("no QGMMA", |it| it.ptx = it.ptx.replace("k16.f32.bf16.bf16", "k32.f32.e4m3.e4m3")),
        ("no HGMMA", |it| it.code = "/*0000*/ HMMA.16816.F32.BF16 R4 ;".into()),
    ];
    for (word, spoil) in ways {
        let mut spoiled = fine.clone();
        spoil(&mut spoiled);
        let told = broken(&spoiled, &target).join("\n");
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    assert_eq!(missing(std::slice::from_ref(&fine), &target).count(), 0);
    let slow = Assembled { code: String::new(), ..fine.clone() };
    assert_eq!(missing(&[slow], &target).count(), 1);
    let mut excused = fine;
    excused.usage.entry = "linear_bf16_tokens_n8_k588_bias".to_owned();
    assert_eq!(missing(&[excused], &target).count(), 1);
}
