//! The adapter: four patches that touch become one decoder position.
//!
//! Source: `extract_feature` and `mlp1` of `modeling_sailvl.py`; the shuffle is its version `v2`.

use sail_ir::GraphBuilder;

use crate::spec::AdapterSpec;

/// `[n, p, d]` of the tower to `[n, p/4, D]` for the decoder, whose width is `D`.
pub fn adapter<G: GraphBuilder>(g: &mut G, spec: &AdapterSpec, x: G::Value) -> G::Value {
    let x = g.pixel_shuffle(x);

    let [weight, bias] = ["mlp1.0.weight", "mlp1.0.bias"].map(|path| g.weight(path));
    let x = g.layer_norm(x, weight, bias, spec.norm_eps);

    let [weight, bias] = ["mlp1.1.weight", "mlp1.1.bias"].map(|path| g.weight(path));
    let x = g.linear_bias(x, weight, bias);
    let x = g.gelu(x);

    let [weight, bias] = ["mlp1.3.weight", "mlp1.3.bias"].map(|path| g.weight(path));
    let x = g.linear_bias(x, weight, bias);
    g.tap("image_features", x);
    x
}
