"""NVIDIA's driver by ctypes: an artefact is loaded into the primary context, which torch uses too, and launched."""

import ctypes
import time

# `extra` of cuLaunchKernel: parameters in one buffer of known length.
PARAMS_AT, PARAMS_BYTES, PARAMS_END = 1, 2, 0


class Driver:
    def __init__(self, ordinal):
        self.library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), ordinal)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} failed with CUDA's error {status}")

    def load(self, image):
        """Code of an artefact; text has to end with a zero."""
        module = ctypes.c_void_p()
        self.call("cuModuleLoadDataEx", ctypes.byref(module), image + b"\0", 0, None, None)
        return module

    def function(self, module, name):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def launch(self, function, blocks, threads, params, stream):
        """The driver copies the parameters before this returns, also where a graph is captured."""
        room, length = ctypes.create_string_buffer(params, len(params)), ctypes.c_size_t(len(params))
        extra = (ctypes.c_void_p * 5)(
            PARAMS_AT, ctypes.addressof(room), PARAMS_BYTES, ctypes.addressof(length), PARAMS_END
        )
        self.call("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, ctypes.c_void_p(stream), None, extra)

    def stream(self):
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), 1)
        return stream.value

    def wait(self, stream, limit_s=60.0):
        """Until the stream has done everything."""
        event, begin = ctypes.c_void_p(), time.monotonic()
        self.call("cuEventCreate", ctypes.byref(event), 0)
        self.call("cuEventRecord", event, ctypes.c_void_p(stream))
        while (status := self.library.cuEventQuery(event)) != 0:
            if status != 600 or time.monotonic() - begin > limit_s:  # 600: not ready
                raise RuntimeError(f"a launch ended with CUDA's error {status}")
            time.sleep(0.0005)
        self.call("cuEventDestroy_v2", event)
