//! Asking the program itself what it would do with a packet.

use aya::{Ebpf, TestRun as _, TestRunOptions, programs::Xdp};
use lb_common::{Explanation, abi::programs};

use super::{
    DatapathError,
    load::{Datapath, Purpose},
    memory::Memory,
    tables::Tables,
};

/// An instance of the program that is attached to nothing: it answers questions and changes nothing.
pub struct Explainer {
    instance: Ebpf,
    answer: Memory<Explanation>,
}

impl Datapath {
    /// Loads the instance that explains.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn explainer(&self) -> Result<Explainer, DatapathError> {
        // The slot decides only whether a frame would leave by XDP_TX or by a redirect, which is no part of the answer.
        let mut instance = self.load_instance(0, Purpose::Explain)?;
        balance(&mut instance)?
            .load()
            .map_err(|error| DatapathError::kernel("the kernel refused the program", &error))?;
        Ok(Explainer { instance, answer: Tables::map_explanation(&self.options.pins)? })
    }
}

impl Explainer {
    /// What the program would do with a frame, given what it remembers at this moment.
    ///
    /// # Errors
    /// The kernel does not run it: a frame shorter than an Ethernet header, or too long.
    pub fn ask(&mut self, frame: &[u8]) -> Result<Explanation, DatapathError> {
        self.answer.set(0, Explanation::default());
        // The program rewrites the frame that it is asked about; nobody looks at it.
        let mut out = vec![0; frame.len() + 256];
        let run =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        balance(&mut self.instance)?
            .test_run(run)
            .map_err(|error| DatapathError::kernel("the kernel did not run the program", &error))?;
        Ok(self.answer.get(0))
    }
}

fn balance(instance: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    instance
        .program_mut(programs::BALANCE)
        .ok_or_else(|| DatapathError::Refused(format!("no program {} in the object", programs::BALANCE)))?
        .try_into()
        .map_err(|error| DatapathError::kernel("the program is not an XDP program", &error))
}
