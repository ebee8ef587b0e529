//! A task of control's runtime whose life is that of a value.
//! It must never outlive whoever holds it.
//! Nothing follows from here.

use tokio::task::JoinHandle;

/// A running task, ended when this is dropped.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    /// Starts it.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
