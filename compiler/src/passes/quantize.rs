//! Give the weights of products a scheme: their types change, no byte is touched.
//!
//! Which operands are weights of products is said by the op rows (`Op::packed`). Norms, biases and
//! positions stay tensors, and so does the embedding table, unless it is the head as well: a scheme
//! that keeps the values has rows to look up (`Op::moved`), and one copy serves both. In another
//! scheme, and for readers of any other kind, a weight stays a tensor beside its packed copy.
//! Products that decide much and weigh little keep `bf16` whatever was asked for, see [`exception`].

use sail_ir::op::Op as Row;
use sail_ir::{Scheme, Type};

use super::Pass;
use crate::rewrite::Rewriter;
use crate::view::{Op, Value};

pub(super) fn pass(scheme: Scheme) -> Pass<'static> {
    Pass::new("quantize", move |function, rewriter| {
        let weights = function.ops().into_iter().filter(|op| op.is("weight"));
        // Collected at once: packing may erase ops further down.
        for weight in weights.collect::<Vec<_>>() {
            pack(weight, scheme, rewriter);
        }
    })
}

fn pack<'c>(weight: Op<'c, '_>, scheme: Scheme, rewriter: &mut Rewriter<'c>) {
    let value = weight.result();
    let products: Vec<_> = value
        .readers()
        .into_iter()
        .filter(|reader| reads_as(*reader, value, |row| row.packed))
        .collect();
    let kept = products.iter().any(|product| exception(*product).is_some());
    let scheme = if kept { Scheme::Bf16 } else { scheme };
    let Some(packed) = packed_type(&value.ty(), scheme).filter(|_| !products.is_empty()) else {
        return;
    };
    let serves = |reader: &Op<'c, '_>| {
        reads_as(*reader, value, |row| row.packed)
            || scheme.keeps_values() && reads_as(*reader, value, |row| row.moved)
    };
    if value.readers().iter().all(serves) {
        rewriter.set_type(value, &packed);
        return;
    }
    let name = format!("{}.packed", weight.label());
    let own = rewriter.insert_weight(weight, name, weight.attributes(), packed);
    for reader in products {
        let row = reader.row().expect("products are ops of the dialect");
        let mut operands = reader.operands();
        for (index, operand) in operands.iter_mut().enumerate() {
            let is_weight = row.operand_name(index).is_some_and(|name| row.packed.contains(&name));
            if is_weight && *operand == value {
                *operand = own;
            }
        }
        rewriter.rebuild(reader, &operands);
    }
}

/// Why the weight of a product stays `bf16`, if it does.
fn exception(product: Op<'_, '_>) -> Option<&'static str> {
    let routes = |value: Value<'_, '_>| value.readers().iter().any(|reader| reader.is("route"));
    match product.name() {
        "linear_route" => Some(ROUTER),
        "linear" if routes(product.result()) => Some(ROUTER),
        "patch_embed" => Some(PIXELS),
        "linear_bias" if product.operand("x").made_by("patches").is_some() => Some(PIXELS),
        _ => None,
    }
}

const ROUTER: &str = "a small error in a router's logits sends a token to other experts";
const PIXELS: &str = "everything that is seen passes through the product of pixels";

/// Does `reader` read `value` as one of the operands that `names` gives of its row?
fn reads_as<'c, 'm>(
    reader: Op<'c, 'm>,
    value: Value<'c, 'm>,
    names: impl Fn(&Row) -> &'static [&'static str],
) -> bool {
    let names = reader.row().map_or(&[][..], names);
    names.iter().any(|name| reader.operand(name) == value)
}

fn packed_type(ty: &Type, scheme: Scheme) -> Option<Type> {
    let Type::Tensor { dims, .. } = ty else { return None };
    let dims = dims.iter().map(|dim| sail_ir::op::fixed("weight", *dim).ok());
    Some(Type::Packed { dims: dims.collect::<Option<_>>()?, scheme })
}
