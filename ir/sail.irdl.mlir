// The sail dialect, printed from the op rows in `ir/src/ops/`. Do not edit: `cargo bless` rewrites it.
irdl.dialect @sail {
  // A weight in the bit layout of a scheme: sizes as in the checkpoint, then the scheme's name.
  irdl.type @packed {
    %sizes = irdl.any
    %scheme = irdl.any
    irdl.parameters(sizes: %sizes, scheme: %scheme)
  }
  // Keys and values of one decoder layer: kv heads and values per head.
  irdl.type @kv_cache {
    %sizes = irdl.any
    irdl.parameters(sizes: %sizes)
  }
  // tensors of the checkpoint, joined to one value
  irdl.operation @weight {
    %w = irdl.any
    %attribute_paths = irdl.any
    %attribute_join = irdl.any
    irdl.attributes {"paths" = %attribute_paths, "join" = %attribute_join}
    irdl.results(w: %w)
  }
  // rows of pixels, one per patch
  irdl.operation @patches {
    %pixels = irdl.any
    %y = irdl.any
    %attribute_patch = irdl.any
    irdl.operands(pixels: %pixels)
    irdl.attributes {"patch" = %attribute_patch}
    irdl.results(y: %y)
  }
  // `y = x · weightᵀ`
  irdl.operation @linear {
    %x = irdl.any
    %weight = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, weight: %weight)
    irdl.results(y: %y)
  }
  // `y = x · weightᵀ + bias`
  irdl.operation @linear_bias {
    %x = irdl.any
    %weight = irdl.any
    %bias = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, weight: %weight, bias: %bias)
    irdl.results(y: %y)
  }
  // RMS norm of every row
  irdl.operation @rms_norm {
    %x = irdl.any
    %weight = irdl.any
    %y = irdl.any
    %attribute_eps = irdl.any
    irdl.operands(x: %x, weight: %weight)
    irdl.attributes {"eps" = %attribute_eps}
    irdl.results(y: %y)
  }
  // RMS norm of every head
  irdl.operation @head_norm {
    %x = irdl.any
    %weight = irdl.any
    %y = irdl.any
    %attribute_eps = irdl.any
    irdl.operands(x: %x, weight: %weight)
    irdl.attributes {"eps" = %attribute_eps}
    irdl.results(y: %y)
  }
  // layer norm of every row
  irdl.operation @layer_norm {
    %x = irdl.any
    %weight = irdl.any
    %bias = irdl.any
    %y = irdl.any
    %attribute_eps = irdl.any
    irdl.operands(x: %x, weight: %weight, bias: %bias)
    irdl.attributes {"eps" = %attribute_eps}
    irdl.results(y: %y)
  }
  // `x + y`, element by element
  irdl.operation @add {
    %x = irdl.any
    %y = irdl.any
    %z = irdl.any
    irdl.operands(x: %x, y: %y)
    irdl.results(z: %z)
  }
  // a learned position added to every patch
  irdl.operation @add_positions {
    %x = irdl.any
    %positions = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, positions: %positions)
    irdl.results(y: %y)
  }
  // `x · y`, element by element
  irdl.operation @mul {
    %x = irdl.any
    %y = irdl.any
    %z = irdl.any
    irdl.operands(x: %x, y: %y)
    irdl.results(z: %z)
  }
  // `x · sigmoid(x)`
  irdl.operation @silu {
    %x = irdl.any
    %y = irdl.any
    irdl.operands(x: %x)
    irdl.results(y: %y)
  }
  // exact GELU, with erf
  irdl.operation @gelu {
    %x = irdl.any
    %y = irdl.any
    irdl.operands(x: %x)
    irdl.results(y: %y)
  }
  // attention among the patches of a tile
  irdl.operation @tile_attention {
    %qkv = irdl.any
    %y = irdl.any
    %attribute_heads = irdl.any
    irdl.operands(qkv: %qkv)
    irdl.attributes {"heads" = %attribute_heads}
    irdl.results(y: %y)
  }
  // 2×2 neighbouring patches into one row
  irdl.operation @pixel_shuffle {
    %x = irdl.any
    %y = irdl.any
    irdl.operands(x: %x)
    irdl.results(y: %y)
  }
  // rows of the embedding table
  irdl.operation @embed {
    %ids = irdl.any
    %table = irdl.any
    %y = irdl.any
    irdl.operands(ids: %ids, table: %table)
    irdl.results(y: %y)
  }
  // image embeddings at the image-token places
  irdl.operation @splice {
    %x = irdl.any
    %features = irdl.any
    %image_rows = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, features: %features, image_rows: %image_rows)
    irdl.results(y: %y)
  }
  // rotate-half RoPE of every head
  irdl.operation @rope {
    %x = irdl.any
    %rows = irdl.any
    %table = irdl.any
    %y = irdl.any
    %attribute_head_dim = irdl.any
    %attribute_theta = irdl.any
    irdl.operands(x: %x, rows: %rows, table: optional %table)
    irdl.attributes {"head_dim" = %attribute_head_dim, "theta" = %attribute_theta}
    irdl.results(y: %y)
  }
  // keys and values of one layer
  irdl.operation @cache {
    %cache = irdl.any
    %attribute_layer = irdl.any
    %attribute_kv_heads = irdl.any
    %attribute_head_dim = irdl.any
    irdl.attributes {"layer" = %attribute_layer, "kv_heads" = %attribute_kv_heads, "head_dim" = %attribute_head_dim}
    irdl.results(cache: %cache)
  }
  // the cache with keys and values of new rows
  irdl.operation @cache_write {
    %cache = irdl.any
    %k = irdl.any
    %v = irdl.any
    %rows = irdl.any
    %after = irdl.any
    irdl.operands(cache: %cache, k: %k, v: %v, rows: %rows)
    irdl.results(after: %after)
  }
  // causal attention over the cache
  irdl.operation @attention {
    %q = irdl.any
    %cache = irdl.any
    %rows = irdl.any
    %y = irdl.any
    irdl.operands(q: %q, cache: %cache, rows: %rows)
    irdl.results(y: %y)
  }
  // the best experts of every row and their weights
  irdl.operation @route {
    %logits = irdl.any
    %ids = irdl.any
    %weights = irdl.any
    %attribute_top_k = irdl.any
    %attribute_renormalize = irdl.any
    irdl.operands(logits: %logits)
    irdl.attributes {"top_k" = %attribute_top_k, "renormalize" = %attribute_renormalize}
    irdl.results(ids: %ids, weights: %weights)
  }
  // weighted sum of the chosen experts
  irdl.operation @experts {
    %x = irdl.any
    %ids = irdl.any
    %weights = irdl.any
    %gate = irdl.any
    %up = irdl.any
    %down = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, ids: %ids, weights: %weights, gate: %gate, up: %up, down: %down)
    irdl.results(y: %y)
  }
  // the rows that an index names
  irdl.operation @select_rows {
    %x = irdl.any
    %index = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, index: %index)
    irdl.results(y: %y)
  }
  // an f32 copy of a value, for checking
  irdl.operation @tap {
    %x = irdl.any
    %attribute_name = irdl.any
    irdl.operands(x: %x)
    irdl.attributes {"name" = %attribute_name}
  }
  // sum over ranks
  irdl.operation @all_reduce {
    %x = irdl.any
    %y = irdl.any
    %attribute_axis = irdl.any
    irdl.operands(x: %x)
    irdl.attributes {"axis" = %attribute_axis}
    irdl.results(y: %y)
  }
  // a run of columns of every row
  irdl.operation @columns {
    %x = irdl.any
    %y = irdl.any
    %attribute_first = irdl.any
    %attribute_count = irdl.any
    irdl.operands(x: %x)
    irdl.attributes {"first" = %attribute_first, "count" = %attribute_count}
    irdl.results(y: %y)
  }
  // RMS norm, then `x · weightᵀ`
  irdl.operation @norm_linear {
    %x = irdl.any
    %norm = irdl.any
    %weight = irdl.any
    %y = irdl.any
    %attribute_eps = irdl.any
    irdl.operands(x: %x, norm: %norm, weight: %weight)
    irdl.attributes {"eps" = %attribute_eps}
    irdl.results(y: %y)
  }
  // `residual + x · weightᵀ`
  irdl.operation @linear_add {
    %x = irdl.any
    %weight = irdl.any
    %residual = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, weight: %weight, residual: %residual)
    irdl.results(y: %y)
  }
  // `silu(gate x) · up x`
  irdl.operation @gate_up_silu {
    %x = irdl.any
    %weight = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, weight: %weight)
    irdl.results(y: %y)
  }
  // RMS norm, then `silu(gate x) · up x`
  irdl.operation @norm_gate_up_silu {
    %x = irdl.any
    %norm = irdl.any
    %weight = irdl.any
    %y = irdl.any
    %attribute_eps = irdl.any
    irdl.operands(x: %x, norm: %norm, weight: %weight)
    irdl.attributes {"eps" = %attribute_eps}
    irdl.results(y: %y)
  }
  // norm and rotate q and k, store k and v
  irdl.operation @qk_norm_rope_write {
    %qkv = irdl.any
    %q_norm = irdl.any
    %k_norm = irdl.any
    %rows = irdl.any
    %cache = irdl.any
    %table = irdl.any
    %q = irdl.any
    %after = irdl.any
    %attribute_eps = irdl.any
    %attribute_heads = irdl.any
    %attribute_kv_heads = irdl.any
    %attribute_head_dim = irdl.any
    %attribute_theta = irdl.any
    irdl.operands(qkv: %qkv, q_norm: %q_norm, k_norm: %k_norm, rows: %rows, cache: %cache, table: optional %table)
    irdl.attributes {"eps" = %attribute_eps, "heads" = %attribute_heads, "kv_heads" = %attribute_kv_heads, "head_dim" = %attribute_head_dim, "theta" = %attribute_theta}
    irdl.results(q: %q, after: %after)
  }
  // patches, product, bias, RMS norm, positions
  irdl.operation @patch_embed {
    %pixels = irdl.any
    %weight = irdl.any
    %bias = irdl.any
    %norm = irdl.any
    %positions = irdl.any
    %y = irdl.any
    %attribute_eps = irdl.any
    %attribute_patch = irdl.any
    irdl.operands(pixels: %pixels, weight: %weight, bias: %bias, norm: %norm, positions: %positions)
    irdl.attributes {"eps" = %attribute_eps, "patch" = %attribute_patch}
    irdl.results(y: %y)
  }
  // `gelu(x · weightᵀ + bias)`
  irdl.operation @linear_bias_gelu {
    %x = irdl.any
    %weight = irdl.any
    %bias = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, weight: %weight, bias: %bias)
    irdl.results(y: %y)
  }
  // pixel shuffle, layer norm, product, bias, GELU
  irdl.operation @shuffle_norm_linear_gelu {
    %x = irdl.any
    %ln_weight = irdl.any
    %ln_bias = irdl.any
    %weight = irdl.any
    %bias = irdl.any
    %y = irdl.any
    %attribute_eps = irdl.any
    irdl.operands(x: %x, ln_weight: %ln_weight, ln_bias: %ln_bias, weight: %weight, bias: %bias)
    irdl.attributes {"eps" = %attribute_eps}
    irdl.results(y: %y)
  }
  // router product and choice of experts
  irdl.operation @linear_route {
    %x = irdl.any
    %weight = irdl.any
    %ids = irdl.any
    %weights = irdl.any
    %attribute_top_k = irdl.any
    %attribute_renormalize = irdl.any
    irdl.operands(x: %x, weight: %weight)
    irdl.attributes {"top_k" = %attribute_top_k, "renormalize" = %attribute_renormalize}
    irdl.results(ids: %ids, weights: %weights)
  }
  // rows sorted by expert
  irdl.operation @group_by_expert {
    %ids = irdl.any
    %order = irdl.any
    %place = irdl.any
    %starts = irdl.any
    %attribute_experts = irdl.any
    irdl.operands(ids: %ids)
    irdl.attributes {"experts" = %attribute_experts}
    irdl.results(order: %order, place: %place, starts: %starts)
  }
  // RMS norm, router product, choice of experts, rows sorted by them
  irdl.operation @norm_linear_route_group {
    %x = irdl.any
    %norm = irdl.any
    %weight = irdl.any
    %ids = irdl.any
    %weights = irdl.any
    %order = irdl.any
    %place = irdl.any
    %starts = irdl.any
    %normed = irdl.any
    %attribute_eps = irdl.any
    %attribute_top_k = irdl.any
    %attribute_renormalize = irdl.any
    irdl.operands(x: %x, norm: %norm, weight: %weight)
    irdl.attributes {"eps" = %attribute_eps, "top_k" = %attribute_top_k, "renormalize" = %attribute_renormalize}
    irdl.results(ids: %ids, weights: %weights, order: %order, place: %place, starts: %starts, normed: %normed)
  }
  // `silu(gate x) · up x`, each row with its expert's weight
  irdl.operation @grouped_gate_up_silu {
    %x = irdl.any
    %order = irdl.any
    %starts = irdl.any
    %weight = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, order: %order, starts: %starts, weight: %weight)
    irdl.results(y: %y)
  }
  // a product, each row with its expert's weight
  irdl.operation @grouped_linear {
    %x = irdl.any
    %starts = irdl.any
    %weight = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, starts: %starts, weight: %weight)
    irdl.results(y: %y)
  }
  // weighted sum of each row's experts
  irdl.operation @combine {
    %x = irdl.any
    %place = irdl.any
    %weights = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, place: %place, weights: %weights)
    irdl.results(y: %y)
  }
  // weighted sum of each row's experts, plus a residual
  irdl.operation @combine_add {
    %x = irdl.any
    %place = irdl.any
    %weights = irdl.any
    %residual = irdl.any
    %y = irdl.any
    irdl.operands(x: %x, place: %place, weights: %weights, residual: %residual)
    irdl.results(y: %y)
  }
  // cosines and sines of RoPE for every position
  irdl.operation @table {
    %table = irdl.any
    %attribute_kind = irdl.any
    %attribute_theta = irdl.any
    %attribute_head_dim = irdl.any
    %attribute_positions = irdl.any
    irdl.attributes {"kind" = %attribute_kind, "theta" = %attribute_theta, "head_dim" = %attribute_head_dim, "positions" = %attribute_positions}
    irdl.results(table: %table)
  }
  // a run of bytes that steps read and write
  irdl.operation @buffer {
    %attribute_name = irdl.any
    %attribute_type = irdl.any
    %attribute_place = irdl.any
    %attribute_bytes = irdl.any
    irdl.attributes {"name" = %attribute_name, "type" = %attribute_type, "place" = %attribute_place, "bytes" = %attribute_bytes}
  }
  // a run of steps handed to the device at once
  irdl.operation @launch {
    %attribute_rank = irdl.any
    %attribute_first = irdl.any
    %attribute_end = irdl.any
    irdl.attributes {"rank" = %attribute_rank, "first" = %attribute_first, "end" = %attribute_end}
  }
  // one kernel over named buffers
  irdl.operation @step {
    %attribute_index = irdl.any
    %attribute_label = irdl.any
    %attribute_kernel = irdl.any
    %attribute_arguments = irdl.any
    %attribute_grid = irdl.any
    %attribute_waits = irdl.any
    irdl.attributes {"index" = %attribute_index, "label" = %attribute_label, "kernel" = %attribute_kernel, "arguments" = %attribute_arguments, "grid" = %attribute_grid, "waits" = %attribute_waits}
  }
}
