"""`python -m attngan_deploy.cli`, which `torchrun -m` needs."""

from attngan_deploy.cli import main

if __name__ == "__main__":
    main()
