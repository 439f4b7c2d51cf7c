"""CUDA bodies of the kernels: ``*.cu``, and the few lines around each that a launch needs.

A body takes tensors of one CUDA device, or of the CPU: there the same sources run through ``emulate.cuh``, thread by
thread, which is slow and for tests. Public functions of ``mpc_ray.kernels`` come here for CUDA tensors alone.

==================  ==================================================================
``sources``         the kernels' names, parameters and text
``emulated``        the sources as C++ for this processor
``device``          the sources on a CUDA device, by CuPy; torch's memory and streams
``launch``          which of the two a tensor's place asks for; checks of arguments
``elementwise`` …   bodies, a file a subject, named as the file of references
==================  ==================================================================
"""
