//! The residual convnet for small images of He et al., "Deep Residual Learning for Image Recognition" (2015), section
//! 4.2: a 3 × 3 stem, three stages of basic blocks, global average pooling. Where a stage halves the image, the shortcut
//! is a 1 × 1 convolution (their option B).

use tch::Tensor;

use super::layers::{BatchNorm, Conv, Linear};
use crate::ModelError;
use crate::parts::Builder;
use crate::supervised::Network;

/// A residual convnet over images `[B, C, H, W]`, or `[B, H, W]` as one channel.
pub(crate) struct Resnet {
    stem: Conv,
    norm: BatchNorm,
    blocks: Vec<Block>,
    head: Linear,
}

impl Resnet {
    pub(crate) fn new(
        builder: &mut Builder,
        channels: i64,
        blocks: u32,
        width: i64,
        outputs: i64,
    ) -> Result<Self, ModelError> {
        let stem = Conv::new(builder, "stem.conv", [channels, width], 3, 1)?;
        let norm = BatchNorm::new(builder, "stem.norm", width)?;
        let mut at = width;
        let mut all = Vec::new();
        for stage in 0..3 {
            let wide = width << stage;
            builder.module(&format!("stages.{stage}"), format!("{blocks} blocks of {wide} channels"));
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                all.push(Block::new(builder, &format!("stages.{stage}.{block}"), [at, wide], stride)?);
                at = wide;
            }
        }
        let head = Linear::new(builder, "head", at, outputs)?;
        Ok(Self { stem, norm, blocks: all, head })
    }
}

impl Network for Resnet {
    fn forward(&self, inputs: &Tensor, training: bool) -> Result<Tensor, ModelError> {
        let stem =
            if inputs.dim() == 3 { self.stem.forward(&inputs.f_unsqueeze(1)?)? } else { self.stem.forward(inputs)? };
        let mut x = self.norm.forward(&stem, training)?.f_relu_()?;
        for block in &self.blocks {
            x = block.forward(&x, training)?;
        }
        self.head.forward(&x.f_mean_dim([2_i64, 3].as_slice(), false, None)?)
    }
}

struct Block {
    conv1: Conv,
    norm1: BatchNorm,
    conv2: Conv,
    norm2: BatchNorm,
    shortcut: Option<(Conv, BatchNorm)>,
}

impl Block {
    fn new(builder: &mut Builder, path: &str, channels: [i64; 2], stride: i64) -> Result<Self, ModelError> {
        let [inputs, outputs] = channels;
        builder.module(path, "basic block");
        let conv1 = Conv::new(builder, &format!("{path}.conv1"), channels, 3, stride)?;
        let norm1 = BatchNorm::new(builder, &format!("{path}.norm1"), outputs)?;
        let conv2 = Conv::new(builder, &format!("{path}.conv2"), [outputs; 2], 3, 1)?;
        let norm2 = BatchNorm::new(builder, &format!("{path}.norm2"), outputs)?;
        let shortcut = if stride == 1 && inputs == outputs {
            None
        } else {
            let conv = Conv::new(builder, &format!("{path}.shortcut.conv"), channels, 1, stride)?;
            Some((conv, BatchNorm::new(builder, &format!("{path}.shortcut.norm"), outputs)?))
        };
        Ok(Self { conv1, norm1, conv2, norm2, shortcut })
    }

    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor, ModelError> {
        // In place where no gradient needs the overwritten values: batch norm saves its input, not its output.
        let hidden = self.norm1.forward(&self.conv1.forward(x)?, training)?.f_relu_()?;
        let mut y = self.norm2.forward(&self.conv2.forward(&hidden)?, training)?;
        let mut sum = match &self.shortcut {
            None => y.f_add_(x)?,
            Some((conv, norm)) => y.f_add_(&norm.forward(&conv.forward(x)?, training)?)?,
        };
        Ok(sum.f_relu_()?)
    }
}
