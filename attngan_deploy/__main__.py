"""`python -m attngan_deploy`, which is `t2i`."""

from attngan_deploy.entry import main

if __name__ == "__main__":
    main()
