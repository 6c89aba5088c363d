//! Exchanges tensors through a c10d process group: NCCL for CUDA tensors; Gloo in tests.

use std::time::Duration;

use lockstep_exchange::Mesh;
use lockstep_host::progress;
use lockstep_tch_ext::c10d::{self, Backend, ProcessGroup, Store};
use tch::{Device, Kind, Tensor};

use super::{CutHandle, Exchange, ExchangeError, MeshExchange};

/// Bytes of a rendezvous address, as text padded with zeros.
const ADDRESS_BYTES: usize = 64;

/// An exchange through a [`ProcessGroup`].
#[derive(Debug)]
pub struct GroupExchange {
    group: ProcessGroup,
    /// The mesh by which the processes met. Notes go through it, because they are on the host.
    mesh: MeshExchange,
    /// Keeps the store's server alive in process 0.
    _store: Store,
    device: Device,
    deadline: Duration,
    /// Packed tensors of a round, by element type: c10d takes one input tensor and one output tensor.
    packed: Vec<Packed>,
}

#[derive(Debug)]
struct Packed {
    kind: Kind,
    outgoing: Tensor,
    incoming: Tensor,
}

impl GroupExchange {
    /// Joins a group of all processes of `mesh`. Process 0 serves the rendezvous store at the address `bind`, and sends its address
    /// through the mesh, so that only processes with the generation's secret learn it.
    ///
    /// `deadline` is the time limit of the set-up and of every later call.
    pub fn join(
        backend: &Backend,
        mesh: Mesh,
        bind: std::net::IpAddr,
        deadline: Duration,
    ) -> Result<Self, ExchangeError> {
        let (process, processes) = (mesh.process(), mesh.processes());
        let mut exchange = MeshExchange::new(mesh);
        let store = rendezvous(&mut exchange, bind, deadline)?;
        let group = ProcessGroup::new(backend, &store, process, processes, deadline)?;
        let device = backend.device();
        Ok(Self { group, mesh: exchange, _store: store, device, deadline, packed: Vec::new() })
    }

    /// Packed buffers for `kind`, of at least these lengths in elements.
    fn packed(&mut self, kind: Kind, outgoing: i64, incoming: i64) -> Result<&Packed, ExchangeError> {
        let index = if let Some(index) = self.packed.iter().position(|packed| packed.kind == kind) {
            index
        } else {
            let empty = || Tensor::f_zeros([0], (kind, self.device));
            self.packed.push(Packed { kind, outgoing: empty()?, incoming: empty()? });
            self.packed.len() - 1
        };
        let packed = &mut self.packed[index];
        for (buffer, length) in [(&mut packed.outgoing, outgoing), (&mut packed.incoming, incoming)] {
            if (buffer.numel() as i64) < length {
                *buffer = Tensor::f_zeros([length], (kind, self.device))?;
            }
        }
        Ok(packed)
    }
}

impl Exchange for GroupExchange {
    fn process(&self) -> usize {
        self.group.rank()
    }

    fn processes(&self) -> usize {
        self.group.size()
    }

    fn exchange(&mut self, outgoing: &[Tensor], incoming: &mut [Tensor]) -> Result<(), ExchangeError> {
        let _waits = progress::waits();
        let own = self.group.rank();
        let lengths = |tensors: &[Tensor]| -> Vec<i64> {
            let length = |(process, tensor): (usize, &Tensor)| if process == own { 0 } else { tensor.numel() as i64 };
            tensors.iter().enumerate().map(length).collect()
        };
        let (out_lengths, in_lengths) = (lengths(outgoing), lengths(incoming));
        let (out_total, in_total) = (out_lengths.iter().sum(), in_lengths.iter().sum());
        let (deadline, kind) = (self.deadline, outgoing[own].kind());
        let packed = self.packed(kind, out_total, in_total)?;
        let out_flat = packed.outgoing.f_narrow(0, 0, out_total)?;
        let in_flat = packed.incoming.f_narrow(0, 0, in_total)?;
        let mut parts = out_flat.f_split_with_sizes(&out_lengths, 0)?;
        for (part, tensor) in parts.iter_mut().zip(outgoing).filter(|(part, _)| part.numel() > 0) {
            part.f_copy_(&tensor.f_view([-1])?)?;
        }
        self.group.all_to_all(&in_flat, &in_lengths, &out_flat, &out_lengths, deadline)?;
        let parts = in_flat.f_split_with_sizes(&in_lengths, 0)?;
        for (part, tensor) in parts.iter().zip(incoming).filter(|(part, _)| part.numel() > 0) {
            tensor.f_view([-1])?.f_copy_(part)?;
        }
        Ok(())
    }

    fn all_reduce(&mut self, tensor: &mut Tensor) -> Result<(), ExchangeError> {
        let _waits = progress::waits();
        Ok(self.group.all_reduce(tensor, self.deadline)?)
    }

    fn note(&mut self, word: u64) {
        self.mesh.note(word);
    }

    fn notes(&mut self) -> Result<Vec<u64>, ExchangeError> {
        let processes = self.mesh.processes();
        let mut nothing: Vec<&mut [u8]> = (0..processes).map(|_| Default::default()).collect();
        self.mesh.exchange_bytes(&vec![&[][..]; processes], &mut nothing)?;
        self.mesh.notes()
    }

    fn cut_handle(&self) -> CutHandle {
        let (group, mesh) = (self.group.abort_handle(), self.mesh.cut_handle());
        CutHandle::new(move || {
            group.abort();
            mesh.cut();
        })
    }
}

/// The rendezvous store: served by process 0, connected to by the others.
fn rendezvous(exchange: &mut MeshExchange, bind: std::net::IpAddr, deadline: Duration) -> Result<Store, ExchangeError> {
    let (process, processes) = (exchange.process(), exchange.processes());
    let invalid = |detail: String| c10d::Error::Backend(detail);
    let mut own = [0_u8; ADDRESS_BYTES];
    let mut served = None;
    if process == 0 {
        let listener = std::net::TcpListener::bind((bind, 0)).map_err(|error| invalid(error.to_string()))?;
        let store = Store::serve(listener, deadline)?;
        let address = store.address().to_string();
        own[..address.len()].copy_from_slice(address.as_bytes());
        served = Some(store);
    }
    let mut heard = [0_u8; ADDRESS_BYTES];
    let outgoing: Vec<&[u8]> = (0..processes).map(|_| if process == 0 { &own[..] } else { &[] }).collect();
    let mut first = Some(&mut heard[..]);
    let mut incoming: Vec<&mut [u8]> = (0..processes)
        .map(|from| if from == 0 && process != 0 { first.take().unwrap_or_default() } else { Default::default() })
        .collect();
    exchange.exchange_bytes(&outgoing, &mut incoming)?;
    if let Some(store) = served {
        return Ok(store);
    }
    let text = String::from_utf8_lossy(&heard);
    let address = text
        .trim_end_matches('\0')
        .parse()
        .map_err(|_| invalid(format!("process 0 sent the invalid address `{text}`: expected IP:PORT")))?;
    Ok(Store::connect(address, deadline)?)
}
