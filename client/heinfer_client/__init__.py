"""The client: encrypts images, has a service classify them unseen, and decrypts the scores."""

from heinfer_client.async_client import AsyncClient
from heinfer_client.client import Client
from heinfer_client.prediction import Confidence, Prediction

__all__ = ["AsyncClient", "Client", "Confidence", "Prediction"]
