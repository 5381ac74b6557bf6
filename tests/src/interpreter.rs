//! Computes a model text at once, in f64, with the kernels' scalar twins: the slow oracle.
//!
//! The second implementer of [`GraphBuilder`]: each verb is carried out when it is said. Nothing is
//! planned, fused or packed. It is no golden; recorded outputs of an independent reference hold it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use half::bf16;
use sail_ir::GraphBuilder;
use sail_ir::op::{Attribute, Attributes};
use sail_kernels::reference::{
    self as twin, Cache, Heads, LayerNorm, Mixture, Picture, Rounding, Row,
};
use sail_models::Weights;

/// Router logits by decoder layer, each `[t, x]`.
pub type Routers = BTreeMap<usize, Vec<f64>>;

/// Tapped values by name, as f32.
pub type Tapped = BTreeMap<String, sailc::golden::Tensor>;

/// A value: an index into what was computed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(usize);

#[derive(Debug, Clone)]
struct Tensor {
    dims: Vec<usize>,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Floats(Rc<[f64]>),
    Ints(Rc<[i32]>),
    Cache { layer: i64, kv_heads: usize, head_dim: usize },
}

/// Computes verbs as they are said.
#[derive(Debug)]
pub struct Interpreter<'w> {
    weights: &'w Weights,
    rounding: Rounding,
    values: Vec<Tensor>,
    loaded: HashMap<Vec<String>, Value>,
    caches: BTreeMap<i64, Cache>,
    taps: BTreeMap<String, Value>,
    /// Instead of our own logits, what the routers decide by.
    forced: Option<Routers>,
}

impl<'w> Interpreter<'w> {
    #[must_use]
    pub fn new(weights: &'w Weights, rounding: Rounding) -> Self {
        Self {
            weights,
            rounding,
            values: Vec::new(),
            loaded: HashMap::new(),
            caches: BTreeMap::new(),
            taps: BTreeMap::new(),
            forced: None,
        }
    }

    /// Let the routers of the layers named here decide by these logits.
    pub fn force_routes(&mut self, routers: Option<Routers>) {
        self.forced = routers;
    }

    pub fn floats(&mut self, dims: &[usize], values: Vec<f64>) -> Value {
        assert_eq!(dims.iter().product::<usize>(), values.len(), "values fill their shape");
        self.push(dims.to_vec(), Data::Floats(values.into()))
    }

    pub fn ints(&mut self, dims: &[usize], values: Vec<i32>) -> Value {
        assert_eq!(dims.iter().product::<usize>(), values.len(), "values fill their shape");
        self.push(dims.to_vec(), Data::Ints(values.into()))
    }

    /// What was computed, row-major.
    ///
    /// # Panics
    ///
    /// When the value holds no floats.
    #[must_use]
    pub fn values(&self, value: Value) -> &[f64] {
        match &self.values[value.0].data {
            Data::Floats(values) => values,
            other => panic!("{other:?} holds no floats"),
        }
    }

    /// The last value tapped under each name; forgets them.
    pub fn take_taps(&mut self) -> Tapped {
        let taps = std::mem::take(&mut self.taps);
        let narrow = |value: Value| sailc::golden::Tensor {
            dims: self.values[value.0].dims.clone(),
            values: self.values(value).iter().map(|v| *v as f32).collect(),
        };
        taps.into_iter().map(|(name, value)| (name, narrow(value))).collect()
    }

    fn push(&mut self, dims: Vec<usize>, data: Data) -> Value {
        self.values.push(Tensor { dims, data });
        Value(self.values.len() - 1)
    }

    /// One checkpoint tensor, widened.
    fn load(&self, path: &str) -> (Vec<usize>, Vec<f64>) {
        let tensor = self.weights.tensor(path).unwrap_or_else(|| panic!("no tensor `{path}`"));
        let (rows, elements) = tensor.rows();
        let mut bytes = vec![0; (rows * elements * 2) as usize];
        self.weights.rows(path, 0, rows, &mut bytes).expect("the whole of a tensor can be read");
        let values = bytes.as_chunks().0.iter().map(|two| bf16::from_le_bytes(*two).to_f64());
        (tensor.shape().into_iter().map(|size| size as usize).collect(), values.collect())
    }

    /// The router of `layer` reads the golden's logits, when it has been told to.
    fn routed<'a>(&'a self, logits: &'a [f64], name: Option<&str>) -> &'a [f64] {
        let forced = self.forced.as_ref().zip(name.and_then(|name| name.strip_prefix("router.")));
        let Some((routers, layer)) = forced else { return logits };
        let layer: usize = layer.parse().expect("a router is tapped with its layer");
        &routers[&layer]
    }
}

impl GraphBuilder for Interpreter<'_> {
    type Value = Value;

    fn weight(&mut self, path: &str) -> Value {
        let key = vec![path.to_owned()];
        if let Some(value) = self.loaded.get(&key) {
            return *value;
        }
        let (dims, values) = self.load(path);
        let value = self.floats(&dims, values);
        self.loaded.insert(key, value);
        value
    }

    fn stacked_weights(&mut self, paths: &[String]) -> Value {
        if let Some(value) = self.loaded.get(paths) {
            return *value;
        }
        let (mut dims, mut all) = (Vec::new(), Vec::new());
        for path in paths {
            let (one, values) = self.load(path);
            dims = one;
            all.extend(values);
        }
        dims.insert(0, paths.len());
        let value = self.floats(&dims, all);
        self.loaded.insert(paths.to_vec(), value);
        value
    }

    fn emit(
        &mut self,
        name: &'static str,
        operands: &[Value],
        attributes: Attributes,
    ) -> Vec<Value> {
        let call = Call {
            operands: operands.iter().map(|value| self.values[value.0].clone()).collect(),
            attributes: &attributes,
            rounding: self.rounding,
        };
        let results = match name {
            "cache" => vec![call.cache()],
            "cache_write" => {
                let layer = call.cache_of(0).0;
                let cache = self.caches.entry(layer).or_default();
                twin::cache_write(cache, call.floats(1), call.floats(2), &call.rows(3));
                vec![call.operands[0].clone()]
            }
            "attention" => {
                let (layer, kv, dim) = call.cache_of(1);
                let width = call.width(0);
                let heads = Heads { query: width / dim, kv, dim };
                let cache = &self.caches[&layer];
                let y = twin::attention(call.floats(0), cache, &call.rows(2), heads, self.rounding);
                vec![call.like(0, width, y)]
            }
            "route" => {
                let tapped = self.taps.iter().find(|(_, value)| **value == operands[0]);
                call.route(self.routed(call.floats(0), tapped.map(|(name, _)| name.as_str())))
            }
            _ => vec![call.compute(name)],
        };
        results.into_iter().map(|tensor| self.push(tensor.dims, tensor.data)).collect()
    }

    fn tap(&mut self, name: &str, x: Value) {
        self.taps.insert(name.to_owned(), x);
    }
}

/// One op with its operands.
struct Call<'a> {
    operands: Vec<Tensor>,
    attributes: &'a Attributes,
    rounding: Rounding,
}

impl Call<'_> {
    /// An op with one result that touches no state.
    fn compute(&self, name: &str) -> Tensor {
        let rounding = self.rounding;
        let (x, width) = (|| self.floats(0), || self.width(0));
        let y = |index: usize| self.floats(index);
        match name {
            "patches" => self.patches(),
            "pixel_shuffle" => {
                let [n, p, d] = self.dims(0);
                let values = twin::pixel_shuffle(x(), p, d);
                floats(vec![n, p / 4, 4 * d], values)
            }
            "tile_attention" => {
                let [_, p, qkv] = self.dims(0);
                let heads = self.size("heads");
                let heads = Heads { query: heads, kv: heads, dim: qkv / 3 / heads };
                self.like(0, qkv / 3, twin::tile_attention(x(), p, heads, rounding))
            }
            "linear" => {
                let values = twin::linear(x(), y(1), width(), rounding);
                self.like(0, self.operands[1].dims[0], values)
            }
            "linear_bias" => {
                let values = twin::linear_bias(x(), y(1), y(2), rounding);
                self.like(0, self.operands[1].dims[0], values)
            }
            "rms_norm" => self.like(0, width(), twin::rms_norm(x(), y(1), self.eps(), rounding)),
            "head_norm" => self.like(0, width(), twin::head_norm(x(), y(1), self.eps(), rounding)),
            "layer_norm" => {
                let norm = LayerNorm { weight: y(1), bias: y(2), eps: self.eps() };
                self.like(0, width(), twin::layer_norm(x(), &norm, rounding))
            }
            "add" => self.like(0, width(), twin::add(x(), y(1), rounding)),
            "add_positions" => self.like(0, width(), twin::add_positions(x(), y(1), rounding)),
            "mul" => self.like(0, width(), twin::mul(x(), y(1), rounding)),
            "silu" => self.like(0, width(), twin::silu(x(), rounding)),
            "gelu" => self.like(0, width(), twin::gelu(x(), rounding)),
            "rope" => {
                let (dim, theta) = (self.size("head_dim"), self.float("theta"));
                self.like(0, width(), twin::rope(x(), &self.rows(1), dim, theta, rounding))
            }
            _ => self.pick_rows(name),
        }
    }

    /// Ops that pick or place rows, and the experts.
    fn pick_rows(&self, name: &str) -> Tensor {
        match name {
            "embed" => {
                let width = self.width(1);
                let values = twin::embed(self.ints(0), self.floats(1), width);
                floats(vec![self.ints(0).len(), width], values)
            }
            "splice" => {
                let width = self.width(0);
                self.like(
                    0,
                    width,
                    twin::splice(self.floats(0), self.floats(1), self.ints(2), width),
                )
            }
            "select_rows" => {
                let width = self.width(0);
                let values = twin::select_rows(self.floats(0), self.ints(1), width);
                floats(vec![self.ints(1).len(), width], values)
            }
            "experts" => {
                let [experts, ..] = self.dims::<3>(3);
                let width = self.width(0);
                let [gate, up, down] = [3, 4, 5].map(|index| self.floats(index));
                let mixture = Mixture { gate, up, down, experts, width };
                let (x, ids, weights) = (self.floats(0), self.ints(1), self.floats(2));
                self.like(0, width, twin::experts(x, ids, weights, &mixture, self.rounding))
            }
            _ => panic!("`sail.{name}` has no meaning in the `graph` stage"),
        }
    }

    fn patches(&self) -> Tensor {
        let [n, channels, size, _] = self.dims(0);
        let patch = self.size("patch");
        let picture = Picture { channels, size, patch };
        let values = twin::patches(self.floats(0), picture);
        floats(vec![n, picture.patches(), channels * patch * patch], values)
    }

    fn route(&self, logits: &[f64]) -> Vec<Tensor> {
        let [tokens, experts] = self.dims(0);
        let top_k = self.size("top_k");
        let renormalize = self.attributes["renormalize"] == Attribute::Bool(true);
        assert_eq!(logits.len(), tokens * experts, "logits for every token");
        let (ids, weights) = twin::route(logits, experts, top_k, renormalize, self.rounding);
        let ids = Tensor { dims: vec![tokens, top_k], data: Data::Ints(ids.into()) };
        vec![ids, floats(vec![tokens, top_k], weights)]
    }

    fn cache(&self) -> Tensor {
        let layer = self.size("layer") as i64;
        let (kv_heads, head_dim) = (self.size("kv_heads"), self.size("head_dim"));
        Tensor { dims: Vec::new(), data: Data::Cache { layer, kv_heads, head_dim } }
    }

    fn cache_of(&self, index: usize) -> (i64, usize, usize) {
        match self.operands[index].data {
            Data::Cache { layer, kv_heads, head_dim } => (layer, kv_heads, head_dim),
            ref other => panic!("{other:?} is no cache"),
        }
    }

    /// A result with the rows of operand `index` and rows of `width`.
    fn like(&self, index: usize, width: usize, values: Vec<f64>) -> Tensor {
        let mut dims = self.operands[index].dims.clone();
        *dims.last_mut().expect("operands have rows") = width;
        floats(dims, values)
    }

    fn floats(&self, index: usize) -> &[f64] {
        match &self.operands[index].data {
            Data::Floats(values) => values,
            other => panic!("{other:?} holds no floats"),
        }
    }

    fn ints(&self, index: usize) -> &[i32] {
        match &self.operands[index].data {
            Data::Ints(values) => values,
            other => panic!("{other:?} holds no integers"),
        }
    }

    fn rows(&self, index: usize) -> Vec<Row> {
        self.ints(index).as_chunks().0.to_vec()
    }

    fn dims<const N: usize>(&self, index: usize) -> [usize; N] {
        self.operands[index].dims[..].try_into().expect("operands have the rank of their op")
    }

    fn width(&self, index: usize) -> usize {
        *self.operands[index].dims.last().expect("operands have rows")
    }

    fn size(&self, name: &str) -> usize {
        match self.attributes[name] {
            Attribute::Int(value) => usize::try_from(value).expect("sizes are positive"),
            ref other => panic!("`{name}` is {other:?}, expected a size"),
        }
    }

    fn float(&self, name: &str) -> f64 {
        match self.attributes[name] {
            Attribute::Float(value) => value,
            ref other => panic!("`{name}` is {other:?}, expected a number"),
        }
    }

    fn eps(&self) -> f64 {
        self.float("eps")
    }
}

fn floats(dims: Vec<usize>, values: Vec<f64>) -> Tensor {
    Tensor { dims, data: Data::Floats(values.into()) }
}
