use lockstep_tch_ext::{fold, optim};
use std::io::Write;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
fn main() {
    tch::set_num_threads(1);
    let mut out = std::io::stdout();
    let f = (Kind::Float, Device::Cpu);
    let make = || -> Vec<Tensor> {
        (0..5).flat_map(|_| [Tensor::randn([64, 64], f) * 0.1, Tensor::zeros([64], f)]).map(|t| t.set_requires_grad(true)).collect()
    };
    let params = make();
    let n: i64 = params.iter().map(|p| p.numel() as i64).sum();
    let flat = Tensor::zeros([n], f);
    let lengths: Vec<i64> = params.iter().map(|p| p.numel() as i64).collect();
    let pieces = flat.split_with_sizes(&lengths, 0);
    let grads: Vec<Tensor> = pieces.iter().zip(&params).map(|(g, p)| g.view(p.size().as_slice())).collect();
    let x = Tensor::randn([32, 64], f);
    let loss = || {
        let mut h = x.shallow_clone();
        for pair in params.chunks(2) {
            h = h.linear(&pair[0], Some(&pair[1])).tanh();
        }
        h.square().mean(Kind::Float)
    };
    let mut time = |name: &str, f: &mut dyn FnMut()| {
        let mut best = f64::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..500 {
                f();
            }
            best = best.min(start.elapsed().as_secs_f64() / 500.0 * 1e6);
        }
        writeln!(out, "{name}: {best:.1} us").unwrap();
    };
    let kinds = [
        ("sgd", optim::Kind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false }),
        ("adamw", optim::Kind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 }),
    ];
    for (name, kind) in kinds {
        let named = params.iter().map(|p| (String::new(), p.shallow_clone(), 0.0)).collect();
        let mut o = optim::Optimizer::new(kind, named).unwrap();
        time(&format!("{name} list"), &mut || o.step(&grads, 1e-4).unwrap());
        let whole = Tensor::zeros([n], f);
        let mut o = optim::Optimizer::new(kind, vec![(String::new(), whole, 0.0)]).unwrap();
        let g = [flat.shallow_clone()];
        time(&format!("{name} one flat tensor"), &mut || o.step(&g, 1e-4).unwrap());
    }
    time("forward", &mut || drop(loss()));
    time("forward + grads_into", &mut || fold::grads_into(&loss(), &params, &flat, false).unwrap());
    time("forward + run_backward", &mut || drop(Tensor::run_backward(&[loss()], &params, false, false)));
    time("flatten_into", &mut || fold::flatten_into(&grads, &flat).unwrap());
    let other = Tensor::zeros([n], f);
    time("add_slices", &mut || fold::add_slices(&other, &flat).unwrap());
    let mut third = Tensor::zeros([n], f);
    time("tch add_", &mut || drop(third.g_add_(&flat)));
    let offsets: Vec<i64> = std::iter::once(0).chain(lengths.iter().scan(0, |s, l| { *s += l; Some(*s) })).collect();
    time("layer_norms", &mut || drop(fold::layer_norms(&flat, &offsets).unwrap()));
}
