//! A decoder-only transformer: learned positions, normalisation before each sublayer, one matrix for embedding and head.
//!
//! Shapes: B samples, T tokens, C width, H heads, D = C / H, V vocabulary.

use tch::Tensor;

use super::layers::{LayerNorm, Linear, dropout};
use crate::ModelError;
use crate::parts::{Builder, Init};
use crate::supervised::Network;

/// Standard deviation of the initial weights. For weights that write to the residual stream it is divided by the square root of the number
/// of such weights (Radford et al. 2019).
const DEVIATION: f64 = 0.02;

/// Sizes of a [`Gpt`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) layers: u32,
    pub(crate) heads: i64,
    pub(crate) width: i64,
    pub(crate) context: i64,
    pub(crate) vocabulary: i64,
    pub(crate) dropout: f64,
}

/// A language model.
pub(crate) struct Gpt {
    tokens_vc: Tensor,
    positions_tc: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    width: i64,
    dropout: f64,
}

impl Gpt {
    pub(crate) fn new(builder: &mut Builder, sizes: Sizes) -> Result<Self, ModelError> {
        let Sizes { layers, width, context, vocabulary, dropout, .. } = sizes;
        builder.module("tokens", format!("embedding {vocabulary} × {width}, also the head"));
        let tokens_vc = builder.parameter("tokens.weight".into(), &[vocabulary, width], Init::Normal(DEVIATION))?;
        builder.module("positions", format!("embedding {context} × {width}"));
        let positions_tc = builder.parameter("positions.weight".into(), &[context, width], Init::Normal(DEVIATION))?;
        let blocks = (0..layers)
            .map(|index| Block::new(builder, &format!("blocks.{index}"), sizes))
            .collect::<Result<_, _>>()?;
        let norm = LayerNorm::new(builder, "norm", width)?;
        Ok(Self { tokens_vc, positions_tc, blocks, norm, width, dropout })
    }
}

impl Network for Gpt {
    /// Tokens `[B, T]` to scores `[B × T, V]`.
    fn forward(&self, tokens_bt: &Tensor, training: bool) -> Result<Tensor, ModelError> {
        let mut embedded_btc = Tensor::f_embedding(&self.tokens_vc, tokens_bt, -1, false, false)?;
        let mut x_btc = dropout(embedded_btc.f_add_(&self.positions_tc)?, self.dropout, training)?;
        for block in &self.blocks {
            x_btc = block.forward(&x_btc, self.dropout, training)?;
        }
        let x_nc = self.norm.forward(&x_btc)?.f_view([-1, self.width])?;
        Ok(x_nc.f_linear(&self.tokens_vc, None::<&Tensor>)?)
    }
}

struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    output: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
    heads: i64,
}

impl Block {
    fn new(builder: &mut Builder, path: &str, sizes: Sizes) -> Result<Self, ModelError> {
        let Sizes { layers, heads, width, .. } = sizes;
        let residual = DEVIATION / (2.0 * f64::from(layers)).sqrt();
        builder.module(path, "transformer block");
        let norm1 = LayerNorm::new(builder, &format!("{path}.norm1"), width)?;
        builder.module(&format!("{path}.attention"), format!("causal attention, {heads} heads of {}", width / heads));
        let qkv = Linear::normal(builder, &format!("{path}.attention.qkv"), width, 3 * width, DEVIATION)?;
        let output = Linear::normal(builder, &format!("{path}.attention.output"), width, width, residual)?;
        let norm2 = LayerNorm::new(builder, &format!("{path}.norm2"), width)?;
        builder.module(&format!("{path}.mlp"), "GELU between two linear layers");
        let up = Linear::normal(builder, &format!("{path}.mlp.up"), width, 4 * width, DEVIATION)?;
        let down = Linear::normal(builder, &format!("{path}.mlp.down"), 4 * width, width, residual)?;
        Ok(Self { norm1, qkv, output, norm2, up, down, heads })
    }

    fn forward(&self, x_btc: &Tensor, share: f64, training: bool) -> Result<Tensor, ModelError> {
        let attended_btc = self.attention(&self.norm1.forward(x_btc)?)?;
        let x_btc = plus(dropout(self.output.forward(&attended_btc)?, share, training)?, x_btc)?;
        let hidden_btf = self.up.forward(&self.norm2.forward(&x_btc)?)?.f_gelu("none")?;
        plus(dropout(self.down.forward(&hidden_btf)?, share, training)?, &x_btc)
    }

    fn attention(&self, x_btc: &Tensor) -> Result<Tensor, ModelError> {
        // Cut along the last dimension, so that one copy joins the gradients of the parts.
        let parts = self.qkv.forward(x_btc)?.f_chunk(3, 2)?;
        let heads = |part: &Tensor| {
            let (batch, time, width) = part.size3()?;
            part.f_view([batch, time, self.heads, width / self.heads])?.f_transpose(1, 2)
        };
        let (q_bhtd, k_bhtd, v_bhtd) = (heads(&parts[0])?, heads(&parts[1])?, heads(&parts[2])?);
        let y_bhtd =
            Tensor::f_scaled_dot_product_attention(&q_bhtd, &k_bhtd, &v_bhtd, None::<&Tensor>, 0.0, true, None, false)?;
        Ok(y_bhtd.f_transpose(1, 2)?.f_flatten(2, 3)?)
    }
}

/// Adds `update` to the residual stream `x`. The sum overwrites `update`, which nothing else reads, unless `x` has a higher precision,
/// which the sum must keep.
fn plus(mut update: Tensor, x: &Tensor) -> Result<Tensor, ModelError> {
    if update.kind() == x.kind() { Ok(update.f_add_(x)?) } else { Ok(x.f_add(&update)?) }
}
