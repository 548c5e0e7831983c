"""/v1/datasets: upload data for calibration, training and evaluation."""

from fastapi import Request, Response

from api import assets, views
from api.auth import DatasetReader, DatasetWriter
from api.documented import downloaded, problems, upload_body, uploaded
from api.parameters import DatasetCursor, DatasetId, IfNoneMatch, IfRange, Limit, Range, Wait
from api.routing import router
from api.schemas import Dataset, Page
from api.services import ServicesHere
from api.uploads import Filename, Name
from db.models import AssetKind

routes = router("datasets")
KIND = AssetKind.DATASET


@routes.post(
    "/v1/datasets",
    status_code=201,
    responses=uploaded(Dataset, "dataset"),
    openapi_extra=upload_body(
        "an .npz, .safetensors or .parquet file, or a zip of images (a folder per class) or of .npy files"
    ),
)
async def upload_dataset(
    request: Request,
    response: Response,
    caller: DatasetWriter,
    services: ServicesHere,
    name: Name = None,
    filename: Filename = None,
) -> Dataset:
    """Upload a dataset, as a form or as raw bytes. The same bytes again give the same dataset with 200.

    Arrays are named after the model's inputs; `labels` holds one entry per sample. Pickled data is refused.
    """
    return views.dataset(await assets.upload(request, response, services, caller, KIND, name, filename))


@routes.get("/v1/datasets", responses=problems())
def list_datasets(
    caller: DatasetReader, services: ServicesHere, limit: Limit = 50, cursor: DatasetCursor = None
) -> Page[Dataset]:
    """The project's datasets, the newest first."""
    found, following = assets.listed(services, caller, KIND, limit, cursor)
    return Page(items=tuple(map(views.dataset, found)), next_cursor=following)


@routes.get("/v1/datasets/{dataset_id}", responses=problems(404))
async def get_dataset(
    request: Request, caller: DatasetReader, services: ServicesHere, dataset_id: DatasetId, wait: Wait = 0
) -> Dataset:
    """A dataset and what its inspection found. `wait` waits for an inspection that goes on."""
    return views.dataset(await assets.wait_for_inspection(request, services, caller, KIND, dataset_id, wait))


@routes.get("/v1/datasets/{dataset_id}/content", responses=downloaded(), response_class=Response)
@routes.head("/v1/datasets/{dataset_id}/content", include_in_schema=False)
async def get_dataset_content(
    request: Request,
    caller: DatasetReader,
    services: ServicesHere,
    dataset_id: DatasetId,
    if_none_match: IfNoneMatch = None,
    range: Range = None,
    if_range: IfRange = None,
) -> Response:
    """The file as it was uploaded."""
    asset = await assets.wait_for_inspection(request, services, caller, KIND, dataset_id, 0)
    return await assets.content(request, services, asset)


@routes.delete("/v1/datasets/{dataset_id}", status_code=204, responses=problems(404, 409))
def delete_dataset(caller: DatasetWriter, services: ServicesHere, dataset_id: DatasetId) -> None:
    """Delete a dataset. Refused while a job that is not over uses it."""
    assets.delete(services, caller, KIND, dataset_id)
