"""A double of TensorFlow Serving for tests of the client: the local server, with faults that a test asks for."""

import threading

from nmt_keras.serving.local_server import Refusal, ServedModel


class Double(ServedModel):
    """One version of a model on a server. Its attributes may be changed while it answers.

    Attributes:
        max_batch: rows of a request, as the batcher limits them.
        max_body: bytes of a REST request, as a proxy limits them.
        fail_first: so many requests find the server unavailable.
        batches: rows of each request that came so far, but for those for the limits.
        inputs: of the last request.
        most_in_flight: requests at once.
    """

    def __init__(self, folder, model, version=1):
        super().__init__(folder, model, version)
        self.max_batch = None
        self.fail_first = 0
        self.batches, self.inputs = [], {}
        self.in_flight = self.most_in_flight = 0
        self._counting = threading.Lock()

    def predict(self, signature, inputs):
        """See `ServedModel`."""
        rows = len(next(iter(inputs.values())))
        with self._counting:
            self.batches += [rows] * (signature != "limits")
            self.inputs = inputs
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            fails, self.fail_first = self.fail_first > 0, max(self.fail_first - 1, 0)
        try:
            if fails:
                raise Refusal("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
            if self.max_batch is not None and rows > self.max_batch:
                limit = f"Task size {rows} is larger than maximum input batch size {self.max_batch}"
                raise Refusal("INVALID_ARGUMENT", limit)
            return super().predict(signature, inputs)
        finally:
            with self._counting:
                self.in_flight -= 1
