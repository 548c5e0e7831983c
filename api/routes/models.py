"""/v1/models: upload models, see what is inside, fetch and delete them."""

from typing import Annotated

from fastapi import Query, Request, Response

from api import assets, views
from api.auth import ModelReader, ModelWriter
from api.documented import downloaded, problems, upload_body, uploaded
from api.parameters import IfNoneMatch, IfRange, Limit, ModelCursor, ModelId, Range, Wait
from api.routing import router
from api.schemas import Layers, Model, Page
from api.services import ServicesHere
from api.uploads import Filename, Name
from compression.summary import ModelSummary
from db.errors import AssetNotReady
from db.models import AssetKind

routes = router("models")
KIND = AssetKind.MODEL


@routes.post(
    "/v1/models",
    status_code=201,
    responses=uploaded(Model, "model"),
    openapi_extra=upload_body(
        "an ONNX file, a zip or tar of one with its external data, or a `.pt2` of `torch.export`"
    ),
)
async def upload_model(
    request: Request,
    response: Response,
    caller: ModelWriter,
    services: ServicesHere,
    name: Name = None,
    filename: Filename = None,
) -> Model:
    """Upload a model, as a form or as raw bytes. The same bytes again give the same model with 200.

    A `.pt2` that `torch.export.save` wrote is converted to ONNX; `summary.conversion` says so.

    The call waits a few seconds for the model's inspection: 201 has the findings, 202 says that it goes on,
    422 why the file was refused.
    """
    return views.model(await assets.upload(request, response, services, caller, KIND, name, filename))


@routes.get("/v1/models", responses=problems())
def list_models(
    caller: ModelReader, services: ServicesHere, limit: Limit = 50, cursor: ModelCursor = None
) -> Page[Model]:
    """The project's models, the newest first, without their summaries."""
    found, following = assets.listed(services, caller, KIND, limit, cursor)
    return Page(items=tuple(views.model(row, listed=True) for row in found), next_cursor=following)


@routes.get("/v1/models/{model_id}", responses=problems(404))
async def get_model(
    request: Request, caller: ModelReader, services: ServicesHere, model_id: ModelId, wait: Wait = 0
) -> Model:
    """A model and what its inspection found. `wait` waits for an inspection that goes on."""
    return views.model(await assets.wait_for_inspection(request, services, caller, KIND, model_id, wait))


@routes.get("/v1/models/{model_id}/layers", responses=problems(404, 409))
def list_layers(
    caller: ModelReader,
    services: ServicesHere,
    model_id: ModelId,
    limit: Annotated[int, Query(ge=1, le=10_000, description="most layers to return")] = 1000,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9]{1,9}$", description="`next_cursor` of the last page")
    ] = None,
) -> Layers:
    """The layers that compute with weights: the names that a step's `layers` selects from."""
    row = assets.get(services, caller, KIND, model_id)
    if row.summary is None:
        raise AssetNotReady(f"The model {model_id} is {row.state}: its layers are not known")
    layers = ModelSummary.model_validate(row.summary).layers
    start = int(cursor or 0)
    stop = start + limit
    return Layers(items=layers[start:stop], next_cursor=str(stop) if stop < len(layers) else None)


@routes.get("/v1/models/{model_id}/content", responses=downloaded(), response_class=Response)
@routes.head("/v1/models/{model_id}/content", include_in_schema=False)
async def get_model_content(
    request: Request,
    caller: ModelReader,
    services: ServicesHere,
    model_id: ModelId,
    if_none_match: IfNoneMatch = None,
    range: Range = None,
    if_range: IfRange = None,
) -> Response:
    """The file as it was uploaded."""
    asset = await assets.wait_for_inspection(request, services, caller, KIND, model_id, 0)
    return await assets.content(request, services, asset)


@routes.get("/v1/models/{model_id}/onnx", responses=downloaded(), response_class=Response)
@routes.head("/v1/models/{model_id}/onnx", include_in_schema=False)
async def get_model_onnx(
    request: Request,
    caller: ModelReader,
    services: ServicesHere,
    model_id: ModelId,
    if_none_match: IfNoneMatch = None,
    range: Range = None,
    if_range: IfRange = None,
) -> Response:
    """The ONNX model that jobs work on: what the upload was converted to, or the upload itself."""
    asset = await assets.wait_for_inspection(request, services, caller, KIND, model_id, 0)
    return await assets.used_content(request, services, asset)


@routes.delete("/v1/models/{model_id}", status_code=204, responses=problems(404, 409))
def delete_model(caller: ModelWriter, services: ServicesHere, model_id: ModelId) -> None:
    """Delete a model. Refused while a job that is not over uses it; finished jobs keep their results."""
    assets.delete(services, caller, KIND, model_id)
