//! The verbs a model is written in.
//!
//! Two implementers: the compiler's importer (each verb becomes an op of the `graph` stage) and
//! the eager f64 interpreter of the tests (each verb is computed at once by the kernels' twins).
//! A model text written in these verbs is therefore the compiler's input and the slow oracle.
//!
//! Shape letters: `t` tokens, `n` image tiles, `p` patches of a tile, `d` model width, `f`
//! feed-forward width, `h` query heads, `g` kv heads, `e` values per head, `x` experts, `k` chosen.

use crate::op::{Attribute, Attributes};

/// Something a model can be told to. `emit` is the one method that differs between implementers.
pub trait GraphBuilder {
    type Value: Copy;

    /// The checkpoint tensor `path`, with the checkpoint's shape.
    fn weight(&mut self, path: &str) -> Self::Value;

    /// Several checkpoint tensors of one shape as one value with a new leading axis.
    fn stacked_weights(&mut self, paths: &[String]) -> Self::Value;

    /// Append the op `sail.NAME`; the results in the order of its row.
    fn emit(
        &mut self,
        name: &'static str,
        operands: &[Self::Value],
        attributes: Attributes,
    ) -> Vec<Self::Value>;

    /// Keep `x` reachable under `name` in functions that are built with taps; nothing otherwise.
    fn tap(&mut self, name: &str, x: Self::Value);

    // What the graph says, in the words of the op table; each is one op.

    /// `[n, c, s, s]` pixels to `[n, p, c·patch²]`, a row per patch in the order (c, dy, dx).
    fn patches(&mut self, pixels: Self::Value, patch: u64) -> Self::Value {
        self.one("patches", &[pixels], [("patch", int(patch))])
    }

    /// `y = x · weightᵀ`, accumulated in f32, rounded once.
    fn linear(&mut self, x: Self::Value, weight: Self::Value) -> Self::Value {
        self.one("linear", &[x, weight], [])
    }

    /// `y = x · weightᵀ + bias`, rounded once. A weight of more than two dimensions is read as
    /// `[rows, rest]`.
    fn linear_bias(
        &mut self,
        x: Self::Value,
        weight: Self::Value,
        bias: Self::Value,
    ) -> Self::Value {
        self.one("linear_bias", &[x, weight, bias], [])
    }

    fn rms_norm(&mut self, x: Self::Value, weight: Self::Value, eps: f64) -> Self::Value {
        self.one("rms_norm", &[x, weight], [("eps", Attribute::Float(eps))])
    }

    /// RMS norm of every run of `weight.len()` values: `[t, h·e]` with weight `[e]`.
    fn head_norm(&mut self, x: Self::Value, weight: Self::Value, eps: f64) -> Self::Value {
        self.one("head_norm", &[x, weight], [("eps", Attribute::Float(eps))])
    }

    fn layer_norm(
        &mut self,
        x: Self::Value,
        weight: Self::Value,
        bias: Self::Value,
        eps: f64,
    ) -> Self::Value {
        self.one("layer_norm", &[x, weight, bias], [("eps", Attribute::Float(eps))])
    }

    fn add(&mut self, x: Self::Value, y: Self::Value) -> Self::Value {
        self.one("add", &[x, y], [])
    }

    /// `[n, p, d] + positions`, the same `[p, d]` (or `[1, p, d]`) for every tile.
    fn add_positions(&mut self, x: Self::Value, positions: Self::Value) -> Self::Value {
        self.one("add_positions", &[x, positions], [])
    }

    fn mul(&mut self, x: Self::Value, y: Self::Value) -> Self::Value {
        self.one("mul", &[x, y], [])
    }

    fn silu(&mut self, x: Self::Value) -> Self::Value {
        self.one("silu", &[x], [])
    }

    /// Exact GELU, with erf.
    fn gelu(&mut self, x: Self::Value) -> Self::Value {
        self.one("gelu", &[x], [])
    }

    /// Attention of every patch to every patch of its tile: `[n, p, 3·h·e]` (all q, all k, all v)
    /// to `[n, p, h·e]`, scale `e^-0.5`.
    fn tile_attention(&mut self, qkv: Self::Value, heads: u64) -> Self::Value {
        self.one("tile_attention", &[qkv], [("heads", int(heads))])
    }

    /// 2×2 neighbours into one row: `[n, p, d]` to `[n, p/4, 4·d]`.
    fn pixel_shuffle(&mut self, x: Self::Value) -> Self::Value {
        self.one("pixel_shuffle", &[x], [])
    }

    /// Rows of the embedding table.
    fn embed(&mut self, ids: Self::Value, table: Self::Value) -> Self::Value {
        self.one("embed", &[ids, table], [])
    }

    /// Row `t` becomes row `image_rows[t]` of `features` where that is not negative.
    fn splice(
        &mut self,
        x: Self::Value,
        features: Self::Value,
        image_rows: Self::Value,
    ) -> Self::Value {
        self.one("splice", &[x, features, image_rows], [])
    }

    /// Rotate-half RoPE of every head at the position in `rows` (slot, position).
    fn rope(
        &mut self,
        x: Self::Value,
        rows: Self::Value,
        head_dim: u64,
        theta: f64,
    ) -> Self::Value {
        let attributes = [("head_dim", int(head_dim)), ("theta", Attribute::Float(theta))];
        self.one("rope", &[x, rows], attributes)
    }

    /// The keys and values of decoder layer `layer`, of all slots.
    fn cache(&mut self, layer: u64, kv_heads: u64, head_dim: u64) -> Self::Value {
        let attributes =
            [("layer", int(layer)), ("kv_heads", int(kv_heads)), ("head_dim", int(head_dim))];
        self.one("cache", &[], attributes)
    }

    /// The cache after storing `k` and `v` (`[t, g·e]`) at `rows`.
    fn cache_write(
        &mut self,
        cache: Self::Value,
        k: Self::Value,
        v: Self::Value,
        rows: Self::Value,
    ) -> Self::Value {
        self.one("cache_write", &[cache, k, v, rows], [])
    }

    /// Causal grouped-query attention over the cache: row (slot, position) sees positions
    /// `0..=position` of its slot; query head `i` reads kv head `i / (h/g)`; scale `e^-0.5`.
    fn attention(&mut self, q: Self::Value, cache: Self::Value, rows: Self::Value) -> Self::Value {
        self.one("attention", &[q, cache, rows], [])
    }

    /// Softmax over all experts in f32, the best `top_k`, divided by their sum when
    /// `renormalize`: `[t, x]` logits to experts `[t, k]` i32 and weights `[t, k]` bf16.
    fn route(&mut self, logits: Self::Value, top_k: u64, renormalize: bool) -> [Self::Value; 2] {
        let attributes = [("top_k", int(top_k)), ("renormalize", Attribute::Bool(renormalize))];
        let results = self.emit("route", &[logits], attributes.into_iter().collect());
        [results[0], results[1]]
    }

    /// The weighted sum of the chosen experts' feed-forwards, added in ascending expert order.
    /// `weights` are stacked `[x, f, d]`, `[x, f, d]`, `[x, d, f]`: gate, up, down.
    fn experts(
        &mut self,
        x: Self::Value,
        route: [Self::Value; 2],
        weights: [Self::Value; 3],
    ) -> Self::Value {
        let [gate, up, down] = weights;
        self.one("experts", &[x, route[0], route[1], gate, up, down], [])
    }

    /// The rows of `x` that `index` names.
    fn select_rows(&mut self, x: Self::Value, index: Self::Value) -> Self::Value {
        self.one("select_rows", &[x, index], [])
    }

    /// An op with one result.
    fn one<const N: usize>(
        &mut self,
        name: &'static str,
        operands: &[Self::Value],
        attributes: [(&'static str, Attribute); N],
    ) -> Self::Value {
        self.emit(name, operands, attributes.into_iter().collect())[0]
    }
}

fn int(value: u64) -> Attribute {
    Attribute::Int(i64::try_from(value).expect("sizes of a checked model fit i64"))
}
