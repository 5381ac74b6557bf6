//! The choice of the next token, as the last step of a function.

use sail_ir::DType;
use sail_ir::draw::Draw;
use sail_ir::plan::{Affine, Buffer, ControlField, Count, Place, Port, Step};

use sail_kernels::sample::ChooseToken;

use super::{FunctionBuilder, StepAccess, WIDE};
use crate::plan::choose::{self, Argument};

impl FunctionBuilder<'_> {
    /// The last step of a function that gives logits, where the device chooses the next token; after
    /// `decode` it also makes the control block that of the next call.
    pub(super) fn choose_tokens(&mut self) {
        let logits = Place::Port { port: Port::Logits };
        let logits = self.buffers.iter().find(|(_, buffer)| buffer.place == logits);
        let Some((logits, buffer)) = logits else { return };
        let rows = Some(Count::Outputs);
        let goes_on = ["decode", WIDE].contains(&self.name);
        let vocabulary = buffer.row_dims.iter().product();
        let Some(kernel) = choose::choose_token(self.given.target, vocabulary, goes_on) else {
            return;
        };
        let mut buffer = |name: &str, place, count, words| {
            let row_bytes = words * DType::I32.bytes();
            self.buffers.push(Buffer {
                name: name.to_owned(),
                place,
                dtype: DType::I32,
                bytes: Affine { per_row: row_bytes, fixed: 0 },
                row_dims: vec![words],
                count,
            })
        };
        let mut reads = vec![logits];
        let mut writes = vec![buffer("chosen", Place::Port { port: Port::Chosen }, rows, 2)];
        if goes_on {
            let control = |field| Place::Control { field };
            let seen = ChooseToken::seen_words(vocabulary);
            reads.push(buffer("draws", control(ControlField::Draws), rows, Draw::WORDS as u64));
            let tokens = Some(Count::Tokens);
            let next = [
                buffer("seen", Place::Port { port: Port::Seen }, rows, seen),
                buffer("next_ids", control(ControlField::Ids), tokens, 1),
                buffer("next_rows", control(ControlField::Rows), tokens, 2),
            ];
            writes.splice(0..0, next);
        }
        let arguments = [reads.clone(), writes.clone()].concat();
        let of_op: Vec<_> = (0..reads.len())
            .map(Argument::Operand)
            .chain((0..writes.len()).map(Argument::Result))
            .collect();
        self.accesses.push(StepAccess { reads, writes });
        let (grid, cost) = (kernel.grid(), kernel.cost());
        let kernel = self.shared.kernel((kernel, false), &of_op);
        let label = "chosen".to_owned();
        self.steps.push(Step { label, kernel, arguments, grid, waits: Vec::new(), cost });
    }
}
