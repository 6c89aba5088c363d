//! The operators, and the shapes that they are computed on. A digest covers the output and the gradient of each input.

use lockstep_tch_ext::optim::{Kind, Optimizer, Update};
use lockstep_tch_ext::{Error, generator};
use tch::{Device, Kind as Dtype, Reduction, TchError, Tensor};

use super::inputs::Of::{self, Mixed, Positive, Unit};
use super::inputs::{indices, tensor};

/// Operators that begin with approximate instructions of the processor, whose bits differ between vendors.
pub(super) const ROUGH: [&str; 9] =
    ["sqrt", "sqrt.double", "log.double", "log2", "log10", "tan", "atan", "asin", "acos"];

/// Computes the output of an operator from its inputs.
type Forward = Box<dyn Fn(&[Tensor]) -> Result<Tensor, TchError>>;

/// An operator with one input: name, range of the input, function.
type Elements = (&'static str, Of, fn(&Tensor) -> Result<Tensor, TchError>);

/// One operator on inputs of fixed shapes.
pub(super) struct Operator {
    pub(super) name: &'static str,
    inputs: Vec<(Of, Vec<i64>)>,
    forward: Forward,
}

impl Operator {
    /// Computes the output, and the gradient of each input.
    pub(super) fn compute(&self) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Vec::new();
        for (seed, (of, shape)) in self.inputs.iter().enumerate() {
            inputs.push(tensor(*of, shape, seed as u64 + 1)?.f_set_requires_grad(true)?);
        }
        // For operators that draw random numbers.
        generator::seed(Device::Cpu, 7)?;
        let output = (self.forward)(&inputs)?;
        let weights = tensor(Of::Unit, &output.size(), 100)?;
        let loss = output.f_mul(&weights)?.f_sum(Dtype::Float)?;
        let gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
        Ok(std::iter::once(output).chain(gradients).collect())
    }
}

#[expect(clippy::too_many_lines, reason = "a list")]
pub(super) fn operators() -> Vec<Operator> {
    let mut all = Vec::new();
    let mut add = |name, inputs: &[(Of, &[i64])], forward: Forward| {
        let inputs = inputs.iter().map(|(of, shape)| (*of, shape.to_vec())).collect();
        all.push(Operator { name, inputs, forward });
    };
    let matmul = || Box::new(|of: &[Tensor]| of[0].f_matmul(&of[1])) as Forward;
    add("matmul.1x1x1", &[(Mixed, &[1, 1]), (Mixed, &[1, 1])], matmul());
    add("matmul.7x13x5", &[(Mixed, &[7, 13]), (Mixed, &[13, 5])], matmul());
    add("matmul.64x64x64", &[(Mixed, &[64, 64]), (Mixed, &[64, 64])], matmul());
    add("matmul.32x300x257", &[(Mixed, &[32, 300]), (Mixed, &[300, 257])], matmul());
    add("matmul.vector", &[(Mixed, &[129]), (Mixed, &[129, 33])], matmul());
    add("matmul.batched", &[(Mixed, &[3, 4, 17, 24]), (Mixed, &[3, 4, 24, 19])], matmul());
    let linear = |of: &[Tensor]| of[0].f_linear(&of[1], Some(&of[2]));
    add("linear", &[(Mixed, &[12, 50]), (Mixed, &[31, 50]), (Mixed, &[31])], Box::new(linear));

    let convolution = |stride: i64, padding: i64, groups: i64| {
        let forward = move |of: &[Tensor]| of[0].f_conv2d(&of[1], Some(&of[2]), stride, padding, 1, groups);
        Box::new(forward) as Forward
    };
    add("conv2d.3x3", &[(Mixed, &[4, 8, 12, 12]), (Mixed, &[16, 8, 3, 3]), (Mixed, &[16])], convolution(1, 1, 1));
    add("conv2d.1x1", &[(Mixed, &[4, 16, 9, 9]), (Mixed, &[24, 16, 1, 1]), (Mixed, &[24])], convolution(1, 0, 1));
    add("conv2d.stride2", &[(Mixed, &[2, 3, 17, 17]), (Mixed, &[8, 3, 3, 3]), (Mixed, &[8])], convolution(2, 1, 1));
    add("conv2d.depthwise", &[(Mixed, &[2, 8, 10, 10]), (Mixed, &[8, 1, 3, 3]), (Mixed, &[8])], convolution(1, 1, 8));
    let conv1d = |of: &[Tensor]| of[0].f_conv1d(&of[1], Some(&of[2]), 1, 2, 1, 1);
    add("conv1d", &[(Mixed, &[3, 6, 40]), (Mixed, &[10, 6, 5]), (Mixed, &[10])], Box::new(conv1d));

    let batch_norm = |training: bool| {
        let forward = move |of: &[Tensor]| {
            let (mean, variance) = (tensor(Unit, &[12], 50)?, tensor(Positive, &[12], 51)?);
            let (weight, bias) = (Some(&of[1]), Some(&of[2]));
            of[0].f_batch_norm(weight, bias, Some(&mean), Some(&variance), training, 0.1, 1e-5, true)
        };
        Box::new(forward) as Forward
    };
    let normed: &[(Of, &[i64])] = &[(Mixed, &[6, 12, 7, 7]), (Unit, &[12]), (Unit, &[12])];
    add("batch_norm.training", normed, batch_norm(true));
    add("batch_norm.evaluation", normed, batch_norm(false));
    let layer_norm = |of: &[Tensor]| of[0].f_layer_norm([48], Some(&of[1]), Some(&of[2]), 1e-5, true);
    add("layer_norm", &[(Mixed, &[9, 48]), (Unit, &[48]), (Unit, &[48])], Box::new(layer_norm));

    let each: [Elements; 24] = [
        ("softmax", Mixed, |x| x.f_softmax(-1, Dtype::Float)),
        ("log_softmax", Mixed, |x| x.f_log_softmax(-1, Dtype::Float)),
        ("gelu", Mixed, |x| x.f_gelu("none")),
        ("gelu.tanh", Mixed, |x| x.f_gelu("tanh")),
        ("relu", Mixed, Tensor::f_relu),
        ("tanh", Mixed, Tensor::f_tanh),
        ("sigmoid", Mixed, Tensor::f_sigmoid),
        ("exp", Mixed, Tensor::f_exp),
        ("log", Positive, Tensor::f_log),
        ("sqrt", Positive, Tensor::f_sqrt),
        ("sqrt.double", Positive, |x| x.f_to_kind(Dtype::Double)?.f_sqrt()),
        ("log.double", Positive, |x| x.f_to_kind(Dtype::Double)?.f_log()),
        ("log2", Positive, Tensor::f_log2),
        ("log10", Positive, Tensor::f_log10),
        ("tan", Unit, Tensor::f_tan),
        ("atan", Mixed, Tensor::f_atan),
        ("asin", Unit, Tensor::f_asin),
        ("acos", Unit, Tensor::f_acos),
        ("sum", Mixed, |x| x.f_sum(Dtype::Float)),
        ("sum.columns", Mixed, |x| x.f_sum_dim_intlist([0].as_slice(), false, Dtype::Float)),
        ("mean.rows", Mixed, |x| x.f_mean_dim([1].as_slice(), false, Dtype::Float)),
        ("norm", Mixed, Tensor::f_norm),
        ("dropout", Unit, |x| x.f_dropout(0.2, true)),
        ("max_pool2d", Mixed, |x| x.f_view([1, 1, 33, 65])?.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)),
    ];
    for (name, of, forward) in each {
        add(name, &[(of, &[33, 65])], Box::new(move |inputs| forward(&inputs[0])));
    }
    let cross_entropy = |of: &[Tensor]| {
        of[0].f_cross_entropy_loss(&indices(37, &[20], 60)?, None::<&Tensor>, Reduction::Mean, -100, 0.0)
    };
    add("cross_entropy", &[(Mixed, &[20, 37])], Box::new(cross_entropy));
    let squares = |of: &[Tensor]| of[0].f_mse_loss(&of[1], Reduction::Mean);
    add("mse_loss", &[(Mixed, &[20, 37]), (Unit, &[20, 37])], Box::new(squares));
    let embedding = |of: &[Tensor]| Tensor::f_embedding(&of[0], &indices(40, &[5, 30], 61)?, -1, false, false);
    add("embedding", &[(Mixed, &[40, 24])], Box::new(embedding));
    // As the built-in transformer calls it.
    let attention = |of: &[Tensor]| {
        Tensor::f_scaled_dot_product_attention(&of[0], &of[1], &of[2], None::<&Tensor>, 0.0, true, None, false)
    };
    let heads: &[i64] = &[2, 4, 32, 16];
    add("attention", &[(Mixed, heads), (Mixed, heads), (Mixed, heads)], Box::new(attention));
    all
}

/// Three steps of each optimizer: parameters and state afterwards.
pub(super) fn optimizers() -> Vec<(&'static str, Result<Vec<Tensor>, Error>)> {
    let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
    let sgd = |momentum, nesterov| Kind::Sgd { momentum, dampening: 0.0, nesterov };
    [
        ("sgd", sgd(0.0, false)),
        ("sgd.momentum", sgd(0.9, false)),
        ("sgd.nesterov", sgd(0.9, true)),
        ("adam", Kind::Adam { beta1, beta2, eps }),
        ("adamw", Kind::AdamW { beta1, beta2, eps }),
    ]
    .map(|(name, kind)| (name, steps(kind)))
    .into()
}

fn steps(kind: Kind) -> Result<Vec<Tensor>, Error> {
    let shapes: [&[i64]; 3] = [&[33, 17], &[64], &[3]];
    let mut parameters = Vec::new();
    for (seed, shape) in shapes.iter().enumerate() {
        parameters.push(tensor(Of::Mixed, shape, seed as u64 + 1)?);
    }
    let named = parameters.iter().enumerate().map(|(index, own)| (format!("p{index}"), own.shallow_clone(), 0.1));
    let mut optimizer = Optimizer::new(kind, named.collect())?;
    for step in 0..3 {
        let gradient = |(at, shape): (usize, &&[i64])| tensor(Of::Mixed, shape, 10 + step * 3 + at as u64);
        let gradients = shapes.iter().enumerate().map(gradient).collect::<Result<Vec<_>, _>>()?;
        optimizer.step(&Update::all(&gradients, 0.01))?;
    }
    parameters.extend(optimizer.state().into_iter().map(|(_, tensor)| tensor));
    Ok(parameters)
}
