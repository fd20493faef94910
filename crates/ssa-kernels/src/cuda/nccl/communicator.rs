//! This GPU among those of all ranks.

use std::ops::Range;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUdeviceptr;

use super::functions::{BYTE, Comm, Config, Functions, IN_PROGRESS, SUCCESS, Status};
use crate::cuda::library::nccl;
use crate::cuda::{Event, Gpu, Memory};
use crate::{Device, KernelError, Result, Tensor};

pub use super::functions::UniqueId;

/// How long the ranks may take to connect, and to queue an operation.
const DEADLINE: Duration = Duration::from_secs(60);

/// The wait between two looks at an operation.
const TICK: Duration = Duration::from_micros(20);

/// How long a loop waits for a call before it sleeps.
const SPIN: Duration = Duration::from_millis(1);

/// Tells whether another rank has ended.
type Ended = Box<dyn Fn() -> bool + Send>;

impl UniqueId {
    /// The number of bytes.
    pub const LEN: usize = 128;

    /// What identifies a new communicator. One rank makes it and tells the others. Needs no GPU.
    ///
    /// # Errors
    /// [`KernelError::Library`] if NCCL is missing or too old; [`KernelError::Cuda`].
    pub fn new() -> Result<Self> {
        let functions = nccl()?;
        let mut id = Self([0; Self::LEN]);
        // SAFETY: the argument is a place for an ID.
        match unsafe { (functions.get_unique_id)(&raw mut id) } {
            SUCCESS => Ok(id),
            status => Err(functions.error("ncclGetUniqueId", status, ptr::null_mut())),
        }
    }

    /// The ID from its bytes.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }
}

/// The connection of a GPU to those of all other ranks. Exchanges run on their own stream, each
/// after what was queued on the GPU before it. All ranks must call the same ones in the same order.
pub struct Communicator {
    gpu: Gpu,
    /// The stream of the exchanges.
    stream: Gpu,
    functions: &'static Functions,
    comm: Comm,
    /// The library writes the communicator to this place again when it has connected.
    _place: Box<Comm>,
    rank: usize,
    size: usize,
    ended: Ended,
}

// SAFETY: NCCL lets any thread use a communicator, one at a time; this type has no shared handles.
unsafe impl Send for Communicator {}

/// Bytes on the device.
#[derive(Clone, Copy)]
struct Region {
    address: CUdeviceptr,
    bytes: usize,
}

impl Region {
    fn whole(memory: &Memory) -> Self {
        Self { address: memory.address(), bytes: memory.bytes() }
    }
}

/// Tensors that a GPU is receiving from other ranks.
#[must_use = "the tensors come from `wait`"]
pub struct Transfer {
    gpu: Gpu,
    received: Vec<Vec<Tensor>>,
    /// The end of the exchange, once it is queued.
    end: Option<Event>,
}

impl Transfer {
    /// Lets the GPU continue only after the exchange; returns what each rank sent: `[r][t]` has one
    /// axis. That of this rank is empty. The host does not wait.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn wait(mut self) -> Result<Vec<Vec<Tensor>>> {
        self.end.take().map_or(Ok(()), |end| end.wait(&self.gpu))?;
        Ok(std::mem::take(&mut self.received))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // The memory is freed next. A failure means that the device is lost.
        let _ = self.end.take().map_or(Ok(()), |end| end.wait(&self.gpu));
    }
}

impl Communicator {
    /// Connects the GPU of a rank with those of the other ranks, which have the same ID. Whatever
    /// waits for other ranks fails once `ended` says that one of them has ended.
    ///
    /// # Errors
    /// [`KernelError::Library`] if NCCL is missing or too old; [`KernelError::Cuda`] with what it
    /// says, or after a minute.
    pub fn new(
        gpu: &Gpu,
        [rank, size]: [usize; 2],
        id: UniqueId,
        ended: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self> {
        const CALL: &str = "ncclCommInitRankConfig";
        let functions = nccl()?;
        // The library uses the device that is current.
        gpu.stream()?;
        let (mut place, mut config) = (Box::new(ptr::null_mut()), Config::non_blocking());
        let [rank_number, size_number] = [rank, size].map(|number| number as i32);
        let (comm_place, config_place) = (&raw mut *place, &raw mut config);
        // SAFETY: both pointers are valid, the first one until the communicator is aborted; the
        // library copies the configuration.
        let status = unsafe {
            (functions.init_rank)(comm_place, size_number, id, rank_number, config_place)
        };
        let (stream, comm, ended) = (gpu.with_stream()?, *place, Box::new(ended));
        let (gpu, _place) = (gpu.clone(), place);
        let communicator = Self { gpu, stream, functions, comm, _place, rank, size, ended };
        communicator.settle(CALL, status)?;
        Ok(communicator)
    }

    /// Starts to send `piece(t, r)` of tensor t to each rank r, and to receive what each sends to
    /// this one, while other work of the GPU goes on. Tensors without elements may be anywhere.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] with what the library says; [`KernelError::OutOfMemory`];
    /// [`KernelError::Argument`] if a tensor is not on this GPU or a piece ends outside of it.
    pub fn start_all_to_all(
        &self,
        tensors: &[&Tensor],
        piece: impl Fn(usize, usize) -> Range<usize>,
    ) -> Result<Transfer> {
        let device = Device::Cuda(self.gpu.clone());
        let mut received: Vec<Vec<Tensor>> = (0..self.size).map(|_| Vec::new()).collect();
        let (mut sends, mut receives) = (Vec::new(), Vec::new());
        for (index, tensor) in tensors.iter().enumerate() {
            let length = if tensor.is_empty() { 0 } else { piece(index, self.rank).len() };
            for (rank, received) in received.iter_mut().enumerate() {
                if rank == self.rank || length == 0 {
                    received.push(Tensor::default());
                } else {
                    let mut room = Tensor::for_output_on(&device, tensor.dtype(), [length])?;
                    receives.push((rank, Region::whole(room.device_memory_mut()?)));
                    received.push(room);
                }
                if rank != self.rank && !tensor.is_empty() {
                    let (memory, element) = (tensor.device_memory()?, tensor.dtype().size());
                    sends.push((rank, self.region(memory, piece(index, rank), element)?));
                }
            }
        }
        let mut transfer = Transfer { gpu: self.gpu.clone(), received, end: None };
        self.exchange(&sends, &receives)?;
        transfer.end = Some(Event::record(&self.stream)?);
        Ok(transfer)
    }

    /// Starts to complete tensors of which every rank r has `piece(t, r)`. Until
    /// [`finish`](Self::finish) they must not be used.
    ///
    /// # Errors
    /// As [`start_all_to_all`](Self::start_all_to_all).
    pub fn start_all_gather(
        &self,
        tensors: &mut [&mut Tensor],
        piece: impl Fn(usize, usize) -> Range<usize>,
    ) -> Result<()> {
        let (mut sends, mut receives) = (Vec::new(), Vec::new());
        for (index, tensor) in tensors.iter_mut().enumerate() {
            let element = tensor.dtype().size();
            let memory = tensor.device_memory_in_place()?;
            let own = self.region(memory, piece(index, self.rank), element)?;
            for rank in (0..self.size).filter(|rank| *rank != self.rank) {
                sends.push((rank, own));
                receives.push((rank, self.region(memory, piece(index, rank), element)?));
            }
        }
        self.exchange(&sends, &receives)
    }

    /// Lets the GPU continue only after all exchanges that were started. The host does not wait.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn finish(&self) -> Result<()> {
        Event::record(&self.stream)?.wait(&self.gpu)
    }

    /// Waits until all that is queued on the stream of the GPU is done.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if it failed or another rank has ended.
    pub fn wait(&self) -> Result<()> {
        const CALL: &str = "exchange between GPUs";
        self.gpu.count_host_wait();
        let end = Event::record(&self.gpu)?;
        while !end.is_done()? {
            self.check(CALL, self.state()?)?;
            self.check_others(CALL)?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Queues sends and receives, all of which run at the same time, after the work that is queued
    /// on the GPU so far.
    fn exchange(&self, sends: &[(usize, Region)], receives: &[(usize, Region)]) -> Result<()> {
        let Self { functions, comm, .. } = *self;
        Event::record(&self.gpu)?.wait(&self.stream)?;
        let stream = self.stream.stream()?;
        // SAFETY: no conditions.
        self.check("ncclGroupStart", unsafe { (functions.group_start)() })?;
        let some = |list: &[(usize, Region)]| {
            list.iter().copied().filter(|(_, region)| region.bytes > 0).collect::<Vec<_>>()
        };
        for (rank, Region { address, bytes }) in some(sends) {
            // SAFETY: the memory has these bytes, and the GPU waits for the end of the exchange
            // before they are freed or changed.
            let status =
                unsafe { (functions.send)(address, bytes, BYTE, rank as i32, comm, stream) };
            self.check("ncclSend", status)?;
        }
        for (rank, Region { address, bytes }) in some(receives) {
            // SAFETY: as above, and nothing else uses these bytes: they belong to tensors borrowed
            // mutably, and regions of one tensor do not overlap.
            let status =
                unsafe { (functions.recv)(address, bytes, BYTE, rank as i32, comm, stream) };
            self.check("ncclRecv", status)?;
        }
        // SAFETY: ends the group that began above.
        let status = unsafe { (functions.group_end)() };
        self.settle("ncclGroupEnd", status)
    }

    fn region(&self, memory: &Memory, piece: Range<usize>, element: usize) -> Result<Region> {
        let (start, bytes) = (piece.start * element, piece.len() * element);
        if *memory.gpu() != self.gpu || start + bytes > memory.bytes() {
            let expected = format!("at most {} bytes on {}", memory.bytes(), self.gpu);
            let actual = format!("{} bytes on {}", start + bytes, memory.gpu());
            return Err(KernelError::value("an exchange", "piece", expected, actual));
        }
        Ok(Region { address: memory.address() + start as u64, bytes })
    }

    fn check(&self, call: &'static str, status: Status) -> Result<()> {
        match status {
            SUCCESS | IN_PROGRESS => Ok(()),
            status => Err(self.functions.error(call, status, self.comm)),
        }
    }

    /// Waits until what a call began is queued: first in a loop, which is usually enough.
    fn settle(&self, call: &'static str, status: Status) -> Result<()> {
        self.check(call, status)?;
        if status == SUCCESS {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            let state = self.state()?;
            self.check(call, state)?;
            if state == SUCCESS {
                return Ok(());
            }
            self.check_others(call)?;
            if start.elapsed() > DEADLINE {
                let message = format!("other ranks did not come in {} s", DEADLINE.as_secs());
                return Err(KernelError::Cuda { call, message });
            }
            if start.elapsed() > SPIN {
                thread::sleep(TICK);
            } else {
                thread::yield_now();
            }
        }
    }

    /// The state of the communicator: success, in progress, or an error.
    fn state(&self) -> Result<Status> {
        let mut state = SUCCESS;
        // SAFETY: the communicator is open and the state a valid place.
        let asked = unsafe { (self.functions.async_error)(self.comm, &raw mut state) };
        self.check("ncclCommGetAsyncError", asked)?;
        Ok(state)
    }

    fn check_others(&self, call: &'static str) -> Result<()> {
        if !(self.ended)() {
            return Ok(());
        }
        Err(KernelError::Cuda { call, message: "another rank has ended".to_owned() })
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if !self.comm.is_null() && self.gpu.stream().is_ok() {
            // Unlike its regular end, this waits for no other rank. Results that were needed have
            // been read.
            // SAFETY: the communicator is open and not used afterwards.
            let _ = unsafe { (self.functions.abort)(self.comm) };
        }
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {} on {}", self.rank, self.size, self.gpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_need_no_gpu_and_differ() {
        let [one, other] = [(); 2].map(|()| UniqueId::new());
        match (one, other) {
            (Ok(one), Ok(other)) => {
                assert_ne!(one.to_bytes(), other.to_bytes());
                assert_eq!(UniqueId::from_bytes(one.to_bytes()).to_bytes(), one.to_bytes());
            }
            (Err(error), _) | (_, Err(error)) => {
                let message = error.to_string();
                assert!(message.contains("pip install nvidia-nccl-cu13"), "{message}");
            }
        }
    }
}
