"""An ensemble as one TensorFlow SavedModel."""

import keras

from keras_langevin.ensemble.saving import layers_with_own_state


def export_saved_model(ensemble, filepath, input_signature, quantiles, verbose=None, **kwargs):
    """Endpoints `serve` and `predict_uncertainty`; see `BayesianEnsembleModel.export`."""
    if keras.backend.backend() == "torch":
        raise ValueError(
            "A SavedModel can be written on the TensorFlow and JAX backends. Received: the torch "
            "backend. Use `ensemble.save('ensemble.keras')`, load that file where "
            "KERAS_BACKEND=tensorflow, and export there."
        )

    def uncertainty(inputs):
        results = ensemble.uncertainties(inputs, quantiles)
        if len(results) == 1:
            return results[0]
        named = zip(ensemble.heads.names, results, strict=True)
        return {f"{name}_{key}": v for name, result in named for key, v in result.items()}

    archive = keras.export.ExportArchive()
    archive.track(ensemble)
    if keras.backend.backend() == "tensorflow":
        for layer in layers_with_own_state(ensemble.members.network):  # tables
            archive.track(layer)
    archive.add_endpoint("serve", ensemble.__call__, input_signature, **kwargs)
    archive.add_endpoint("predict_uncertainty", uncertainty, input_signature, **kwargs)
    archive.write_out(str(filepath), verbose=True if verbose is None else verbose)
