//! The buffers of a function: what values, weights, taps and kernels have.

use sail_ir::id::BufferId;
use sail_ir::plan::{Affine, Buffer, ControlField, Count, Grid, Place, Port};
use sail_ir::shape::{Dim, Type};
use sail_kernels::Kernel;

use super::FunctionBuilder;
use crate::plan::choose::Argument;
use crate::plan::flat::{OpView, ValueId};
use crate::plan::weights::Source;

impl FunctionBuilder<'_> {
    /// A buffer for `value`, with the bytes its type and count ask for.
    pub(super) fn buffer_of(&mut self, value: ValueId, place: Place) -> BufferId {
        let view = &self.view.values[value];
        let count = self.counts[value];
        let (dims, dtype) = match &view.ty {
            Type::Tensor { dims, dtype } => (dims.clone(), *dtype),
            other => panic!("broken invariant `plan.tensor`: `{}` is `{other}`", view.name),
        };
        let row_dims: Vec<u64> = dims
            .iter()
            .filter_map(|dim| match dim {
                Dim::Fixed(size) => Some(*size),
                Dim::Counted => None,
            })
            .collect();
        let row_bytes = row_dims.iter().product::<u64>() * dtype.bytes();
        let bytes = match count {
            None => Affine { per_row: 0, fixed: row_bytes },
            Some(count) if count == self.count || matches!(place, Place::Port { .. }) => {
                Affine { per_row: row_bytes, fixed: 0 }
            }
            Some(_) => Affine { per_row: 0, fixed: row_bytes * u64::from(self.max_outputs()) },
        };
        self.buffers.push(Buffer { name: view.name.clone(), place, dtype, bytes, row_dims, count })
    }

    /// The buffer of a weight or a table.
    pub(super) fn weight(&mut self, name: String, source: Source) -> BufferId {
        let layout = source.layout();
        let (id, bytes) = self.shared.weights.add(source);
        self.buffers.push(Buffer {
            name,
            place: Place::Weight { weight: id },
            dtype: layout.dtype,
            bytes: Affine { per_row: 0, fixed: bytes },
            row_dims: layout.dims,
            count: None,
        })
    }

    /// The order in which the experts of a layer are stored.
    pub(super) fn order(&mut self, layer: u32) -> BufferId {
        if let Some(buffer) = self.orders.get(&layer) {
            return *buffer;
        }
        let placement = self.given.placement.expect("who asks for an order knows of one");
        let source = Source::Order(placement.of_layer(layer).to_vec());
        let buffer = self.weight(format!("layers.{layer}.experts.order"), source);
        self.orders.insert(layer, buffer);
        buffer
    }

    /// What a kernel has for itself.
    pub(super) fn scratch_buffer(
        &mut self,
        label: &str,
        kernel: &dyn Kernel,
        argument: &Argument,
    ) -> BufferId {
        let scratch = kernel.scratch().expect("who works in something says in how much");
        if *argument == Argument::Counters {
            let counters = (format!("{label}.counters"), sail_ir::DType::I32);
            let bytes = 4 * u64::from(scratch.row_counters);
            return self.own_buffer(counters, Place::Counters, bytes, kernel.grid());
        }
        let parts = (format!("{label}.scratch"), sail_ir::DType::F32);
        let place = Place::Arena { offset: Affine::default() };
        self.own_buffer(parts, place, scratch.row_bytes, kernel.grid())
    }

    /// A buffer that no op gives, of `row_bytes` for each row of a kernel's grid.
    pub(super) fn own_buffer(
        &mut self,
        (name, dtype): (String, sail_ir::DType),
        place: Place,
        row_bytes: u64,
        grid: Grid,
    ) -> BufferId {
        let row_bytes = row_bytes * u64::from(grid.per);
        let bytes = if grid.count == self.count {
            Affine { per_row: row_bytes, fixed: 0 }
        } else {
            Affine { per_row: 0, fixed: row_bytes * u64::from(self.max_outputs()) }
        };
        let row_dims = vec![row_bytes / dtype.bytes()];
        let count = Some(grid.count);
        self.buffers.push(Buffer { name, place, dtype, bytes, row_dims, count })
    }

    /// Where a result goes: a cache is written in place, a returned value to its port, all else to
    /// the arena (its offset is found when everything is known).
    pub(super) fn result_buffer(&mut self, op: &OpView, value: ValueId) -> BufferId {
        if matches!(self.view.values[value].ty, Type::Cache { .. }) {
            let source = op
                .operands
                .iter()
                .find(|operand| matches!(self.view.values[**operand].ty, Type::Cache { .. }))
                .expect("an op that yields a cache takes one");
            return self.of_value[*source].expect("a cache is defined before it is written");
        }
        let tapped = self.view.name.ends_with(".taps");
        let place =
            if self.view.returns.contains(&value) && !(tapped && self.count == Count::Tokens) {
                let port = if self.count == Count::Images { Port::Features } else { Port::Logits };
                Place::Port { port }
            } else {
                Place::Arena { offset: Affine::default() }
            };
        self.buffer_of(value, place)
    }

    pub(super) fn tap_buffer(&mut self, op: &OpView) -> BufferId {
        let value = op.operands[0];
        let name = match op.attributes.get("name") {
            Some(sail_ir::op::Attribute::Text(name)) => name.clone(),
            other => panic!("broken invariant `tap.name`: {other:?}"),
        };
        let id = self.buffer_of(value, Place::Tap { name });
        let buffer = &mut self.buffers[id];
        buffer.bytes.per_row *= 4 / buffer.dtype.bytes();
        buffer.bytes.fixed *= 4 / buffer.dtype.bytes();
        buffer.dtype = sail_ir::DType::F32;
        id
    }

    pub(super) fn page_table(&mut self) -> BufferId {
        if let Some(buffer) = self.page_table {
            return buffer;
        }
        let buffer = self.buffers.push(Buffer {
            name: "page_table".to_owned(),
            place: Place::Control { field: ControlField::PageTable },
            dtype: sail_ir::DType::I32,
            bytes: Affine::default(), // slots and pages are chosen at load
            row_dims: Vec::new(),
            count: None,
        });
        self.page_table = Some(buffer);
        buffer
    }
}
